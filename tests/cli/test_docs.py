"""docs/cli.md: its examples do what it says, and its tables are complete."""

import re
from pathlib import Path

import pytest

from instance_manager.cli.exit_codes import MEANINGS
from instance_manager.cli.root import COMMANDS
from tests.support.cli import executed
from tests.support.daemon import Daemon
from tests.support.examples import Example, examples, examples_in

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_parser_tells_commands_from_what_they_print() -> None:
    found = examples("```console\n$ a b\none ... two\n$ c\n```\n\n```console\n$ d\n...\n```\n```sh\ne\n```\n")
    assert found == [Example("a b", "one ... two\n"), Example("c", ""), Example("d", "...\n")]
    assert found[0].matches("one \n and a half two\n")
    assert not found[0].matches("one two")
    assert not found[1].matches("anything")


@pytest.mark.timeout(300)
async def test_every_example_does_what_it_says(daemon: Daemon) -> None:
    env = {"INSTANCE_MANAGER_URL": daemon.url}
    found = examples_in("cli.md")
    assert len(found) >= 10
    for example in found:
        out = (await executed("/bin/sh", "-c", f"exec 2>&1; {example.command}", env=env)).out
        assert example.matches(out), f"$ {example.command}\nprints\n{out}\nand not\n{example.shown}"


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    section = DOCS.read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", section, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == {int(c): m for c, m in MEANINGS.items()}


def test_every_command_is_named() -> None:
    text = DOCS.read_text()
    assert [name for name in COMMANDS if f"`{name}" not in text] == []
