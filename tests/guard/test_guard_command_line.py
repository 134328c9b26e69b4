import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import BIN, refusal
from tests.support.guard import STUB, Guard, guarding, strings
from tests.support.patience import patience


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the guard to its end."""
    return subprocess.run(
        [BIN, "guard", *arguments],
        capture_output=True,
        text=True,
        timeout=patience(20),
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no command to guard; it stands after --, as in instance-manager guard -- daemon"),
        (["--"], "there is no command to guard"),
        (["daemon"], "unknown argument daemon; the command to guard stands after --"),
        (["--nonsense", "--", "daemon"], "unknown argument --nonsense"),
        (["--restarts=-1", "--", "daemon"], "argument --restarts: '-1' is not a whole number from 0 up"),
        (["--restarts", "1.5", "--", "daemon"], "'1.5' is not a whole number"),
        (["--within", "0", "--", "daemon"], "argument --within: '0' is not a number of minutes above 0"),
        (["--within", "nan", "--", "daemon"], "'nan' is not a number of minutes above 0"),
        (["--within", "soon", "--", "daemon"], "'soon' is not a number of minutes above 0"),
        (["--state-dir", "", "--", "daemon"], "argument --state-dir: it is empty"),
        (["--helper", "tgtd", "--", "daemon"], "argument --helper: 'tgtd' is not NAME=COMMAND"),
        (["--helper", "=tgtd -f", "--", "daemon"], "argument --helper: '=tgtd -f' is not NAME=COMMAND"),
        (["--helper", "tgtd=", "--", "daemon"], "argument --helper: tgtd has no command"),
        (["--helper", "tgtd='", "--", "daemon"], "the command of tgtd cannot be split: No closing quotation"),
        (["--helper=a=b", "--helper=a=c", "--", "daemon"], "there are two of the name a"),
        (["--prepare", "all", "--", "daemon"], "argument --prepare: 'all' is not longhorn"),
        (["--state-dir"], "argument --state-dir: expected one argument"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in refusal(done.stderr)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_tells_the_options_and_exit_codes(option: str) -> None:
    done = run(option)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "--state-dir DIR",
        "--restarts N",
        "--within MINUTES",
        "--helper NAME=COMMAND",
        "default: 100",
        "Exit code",
    ):
        assert words in done.stdout


def test_the_environment_sets_options_too_and_is_checked_alike() -> None:
    done = run("--", "daemon", INSTANCE_MANAGER_GUARD_RESTARTS="many")
    assert done.returncode == 2
    assert "argument --restarts: 'many' is not a whole number" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "instance-manager",
        "longhorn-instance-manager",
        "/usr/local/bin/instance-manager",
        "./longhorn-instance-manager",
    ],
)
async def test_the_command_may_begin_with_the_name_of_the_program(tmp_path: Path, name: str) -> None:
    """As the arguments of a pod do that a Longhorn manager makes, before global options of the daemon."""
    async with guarding(tmp_path, name, "--debug", *STUB) as guard:
        pid = await guard.started()
        await guard.printed("listening")
        assert strings(pid, "cmdline") == [sys.executable, str(BIN), "--debug", *STUB]
        assert guard.events("daemon started")[0]["command"] == "stub"
        assert await guard.stop() == 0


def test_the_name_of_the_program_alone_is_no_command() -> None:
    done = run("--", "instance-manager")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no command to guard" in refusal(done.stderr)


@pytest.mark.parametrize("path", [os.environ["PATH"], ""], ids=["without spdk_tgt", "with spdk_tgt"])
def test_the_command_of_a_v2_pod_says_in_one_line_what_is_missing(tmp_path: Path, path: str) -> None:
    if not path:
        (tmp_path / "spdk_tgt").touch(mode=0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
    command = ("start-spdk-tgt", "--spdk-log", "/log/spdk_tgt.log", "--enable-spdk", "--debug", "daemon")
    done = run(
        *("--state-dir", str(tmp_path), "--", *command, "--spdk-enabled", "--listen", "0.0.0.0:8500"),
        PATH=path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (told,) = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "cannot start"]
    assert "spdk_tgt" in told["reason"]
    assert "daemon will be started again" not in done.stderr


@pytest.mark.parametrize(("program", "code"), [("start-spdk-tgt", 2), ("instance-manager-v2-prestop", 0)])
def test_the_programs_of_a_v2_pod_are_installed(program: str, code: int) -> None:
    done = subprocess.run(
        [BIN.with_name(program)], capture_output=True, text=True, timeout=patience(20), check=False
    )
    assert done.returncode == code
    assert "spdk_tgt" in done.stdout + done.stderr


async def test_the_state_folder_of_the_daemon_is_the_guards_unless_told_otherwise(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    environment = {"INSTANCE_MANAGER_DAEMON_STATE_DIR": str(tmp_path)}
    command = (str(BIN), "guard", "--", *STUB, "--exit", "0")
    await guard.start(command, environment=environment)
    assert await guard.ended() == 0
    assert (tmp_path / "exits" / "boot_id").exists()
    assert await guard.clean_up() == []


@pytest.mark.parametrize(
    ("program", "before"),
    [
        ((str(BIN),), [str(BIN)]),
        ((sys.executable, "-P", "-m", "instance_manager"), ["-P", "-m", "instance_manager"]),
        ((str(BIN), "--debug"), [str(BIN), "--debug"]),
    ],
)
async def test_the_command_is_started_as_the_guard_was(
    tmp_path: Path, program: tuple[str, ...], before: list[str]
) -> None:
    async with guarding(tmp_path, *STUB, program=program) as guard:
        pid = await guard.started()
        await guard.printed("listening")
        started = strings(pid, "cmdline")
        assert started == [sys.executable, *before, *STUB]
        assert await guard.stop() == 0


def test_as_a_module_it_guards_the_installed_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "instance_manager.guard", "--state-dir", tmp_path, "--", *STUB, "--exit", "0"],
        capture_output=True,
        text=True,
        timeout=patience(20),
        check=False,
    )
    assert done.returncode == 0
    assert "exiting with code 0" in done.stdout


def test_it_loads_nothing_of_weight() -> None:
    heavy = {
        "asyncio",
        "click",
        "ctypes",
        "dataclasses",
        "logging",
        "pathlib",
        "subprocess",
        "threading",
        "typing",
    }
    code = (
        "import sys; from instance_manager.cli import main; sys.argv = ['x', 'guard', '--help']\n"
        f"try: main()\nfinally: sys.exit(str(sorted({heavy} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=patience(20), check=False
    )
    assert done.stderr == "[]\n"
