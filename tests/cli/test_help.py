"""What the program tells about itself, and how little it loads for that."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from instance_manager.cli.exit_codes import MEANINGS
from instance_manager.cli.root import COMMANDS as ROOT_COMMANDS
from instance_manager.cli.root import root
from tests.support.cli import executed, run
from tests.support.daemon import BIN
from tests.support.fake_daemon import fake_daemon, process
from tests.support.fake_events import FakeEvents
from tests.support.fake_instances import FakeInstances, instance

OWN_PARSER = {"guard", "stub"}
"""Commands that click does not parse; they have tests of their own."""


def every_command(
    group: click.Group, parent: click.Context, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Yield each command below a group, with the words that call it."""
    for name in sorted({*group.list_commands(parent)} - OWN_PARSER):
        command = group.get_command(parent, name)
        assert command is not None
        ctx = click.Context(command, info_name=name, parent=parent)
        yield (*path, name), command, ctx
        if isinstance(command, click.Group):
            yield from every_command(command, ctx, (*path, name))


ROOT = click.Context(root, info_name="instance-manager", auto_envvar_prefix="INSTANCE_MANAGER")
COMMANDS = {" ".join(path): (command, ctx) for path, command, ctx in every_command(root, ROOT)}


def test_every_command_is_here() -> None:
    both = {"create", "delete", "get", "list", "log", "replace", "watch"}
    of_v2 = {"suspend", "resume", "switch-over", "delete-target"}
    assert set(COMMANDS) == {
        *(ROOT_COMMANDS.keys() - OWN_PARSER),
        *(f"process {name}" for name in both | {"wait"}),
        *(f"instance {name}" for name in both | of_v2),
        *(f"log-level {name}" for name in ("get", "set")),
        *(f"orphans {name}" for name in ("run", "list", "get", "explain", "delete")),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_examples_that_can_be_parsed(name: str) -> None:
    command, ctx = COMMANDS[name]
    text = command.get_help(ctx)
    before, _, examples = text.rpartition("\n  Examples:\n")
    assert before, text
    lines = examples.splitlines()
    assert all(re.fullmatch(r" {4}(longhorn-)?instance-manager( --url \S+)? .*", line) for line in lines)
    assert any(f"instance-manager {name}" in line or "process ls" in line for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_tells_its_meaning_and_its_default(name: str) -> None:
    command, ctx = COMMANDS[name]
    for param in command.params:
        if not isinstance(param, click.Option) or param.is_flag:
            continue
        record = param.get_help_record(ctx)
        assert record is not None
        assert param.help
        assert param.name == "name" or "[default: " in record[1] or "required]" in record[1], record
        if isinstance(param.type, click.FloatRange):
            assert param.metavar == "SECONDS"


async def test_the_help_of_process_lists_every_exit_code() -> None:
    result = await run("process", "--help")
    assert result.code == 0
    for code, meaning in MEANINGS.items():
        assert re.search(rf"^ +{int(code)} +{re.escape(meaning)}$", result.out, re.MULTILINE)


async def loaded(*arguments: str) -> set[str]:
    """Run the program and return every module that it has imported."""
    result = await executed(sys.executable, "-X", "importtime", str(BIN), *arguments)
    assert result.code == 0, result
    return {line.rpartition("|")[2].strip() for line in result.err.splitlines()}


async def test_help_loads_neither_grpc_nor_asyncio() -> None:
    for arguments in (["--help"], ["process", "--help"], ["--version"], ["completion", "zsh"]):
        modules = await loaded(*arguments)
        assert "click" in modules
        assert not modules & {"grpc", "asyncio", "google.protobuf", "rich", "yaml", "uvloop", "structlog"}


async def test_a_client_loads_nothing_of_the_daemon_and_no_library_for_what_it_does_not_show(
    tmp_path: Path,
) -> None:
    events, instances = FakeEvents(), FakeInstances()
    events.happen("r1", "running")
    instances.listed = {"r1": instance("r1", "running")}
    services = (events.handler, instances.handler)
    async with fake_daemon(f"unix:{tmp_path}/fake.sock", *services) as fake:
        fake.list = [process("running")]
        for command in (
            *(["health"], ["process", "list"], ["process", "list", "-o", "table"]),
            *(["instance", "list"], ["events", "-o", "text"], ["log-level", "get"]),
        ):
            modules = await loaded("--url", fake.url, *command)
            assert "grpc" in modules
            assert not modules & {
                *("rich", "yaml", "uvloop", "structlog", "psutil", "h2", "asyncinotify"),
                *("instance_manager.daemon", "instance_manager.api", "instance_manager.app"),
            }
            assert ("google.protobuf.json_format" in modules) is (command[1:] == ["list"])
