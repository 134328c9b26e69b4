"""`--config`: defaults out of a file."""

import os
from pathlib import Path

import click
import pytest

from instance_manager.cli.config import read_defaults
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.root import root
from tests.support.cli import run
from tests.support.fake_daemon import fake_daemon, process


async def test_a_flag_comes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"url: unix:{tmp_path}/fake.sock\nprocess:\n  list:\n    output: name\n")
    listed = ("--config", str(file), "process", "list")
    in_environment = {"INSTANCE_MANAGER_PROCESS_LIST_OUTPUT": "table"}
    async with fake_daemon(f"unix:{tmp_path}/fake.sock") as fake:
        fake.list = [process("running")]
        assert (await run(*listed)).out == "r1\n"
        assert (await run("process", "ls", env={"INSTANCE_MANAGER_CONFIG": str(file)})).out == "r1\n"
        assert (await run(*listed, env=in_environment)).out.startswith("NAME ")
        assert (await run(*listed, "-o", "json", env=in_environment)).out.startswith("{")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("# nothing yet\n")
    assert read_defaults(str(file), click.Context(root)) == {}


def test_a_key_is_the_name_of_an_option_whatever_it_sets(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("daemon: {stop-timeout: 5}\nprocess: {wait: {for: running}, log: {tail: 3}}\n")
    assert read_defaults(str(file), click.Context(root)) == {
        "daemon": {"stop_timeout": "5"},
        "process": {"wait": {"goal": "running"}, "log": {"tail": "3"}},
    }


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory"),
        (b"process: [\n  a: b: c", "in line 2"),
        (b"\xff\xfe\xff", ""),
        (b"- url", "the file has to be a mapping, not ['url']"),
        (b"process: list", "process has to be a mapping, not 'list'"),
        (b"processes: {}", "processes is neither an option nor a command"),
        (b"1: 2", "1 is neither an option nor a command"),
        (b"process: {list: {outputs: wide}}", "process.list.outputs is neither an option nor a command"),
        (b"config: other.yaml", "config is neither an option nor a command"),
        (b"daemon: {stop-timeout: 5, help: true}", "daemon.help is neither an option nor a command"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Failure) as refused:
        read_defaults(str(file), click.Context(root))
    assert refused.value.code is ExitCode.USAGE
    message = str(refused.value)
    assert message.startswith(f"cannot use the configuration file {file}: ")
    assert complaint in message
    assert "\n" not in message


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as long:
        long.truncate(1 << 40)
    with pytest.raises(Failure, match="it has more than 1024 KiB"):
        read_defaults(str(tmp_path / "long"), click.Context(root))


async def test_a_file_that_is_missing_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = await run("--config", f"{tmp_path}/none.yaml", "process", "list")
    assert result.code == 2
    assert (
        result.error == f"cannot use the configuration file {tmp_path}/none.yaml: No such file or directory"
    )


async def test_a_value_in_the_file_is_checked_like_one_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("daemon:\n  stop-timeout: soon\n")
    result = await run("--config", str(file), "daemon")
    assert result.code == 2
    assert "Invalid value for '--stop-timeout': 'soon'" in result.err


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failure, match="it is not a regular file"):
        read_defaults(str(tmp_path / "pipe"), click.Context(root))
