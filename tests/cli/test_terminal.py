"""What a person sees: tables, colours and changes on a terminal."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.cli import ESCAPES, interrupted, on_terminal, shown
from tests.support.daemon import Daemon, Watch, shell, sleeper
from tests.support.fake_daemon import FakeDaemon, fake_daemon, process
from tests.support.patience import patience

GREEN, RED = "\x1b[32m", "\x1b[31m"
UUID = "0e2cbdd9-1c57-4b1f-a7a7-6a9e7d9e9a0{}"
LONG = "a-pvc-0a1b2c3d-4e5f-6789-abcd-ef0123456789-r-1a2b3c4d"


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    """A daemon with one process that runs and one that failed."""
    async with fake_daemon(f"unix:{tmp_path}/fake.sock") as running:
        running.list = [
            process("running", UUID.format(1), name=LONG),
            process("error", UUID.format(2), name="b"),
        ]
        yield running


async def test_a_terminal_gets_a_table_with_the_states_in_colour(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await client.process_create(shell("b", "exit 3"))
        await watch.state("a", "running")
        await watch.state("b", "error")
        listed = await client.process_list()
    text = await shown(daemon.url, "process", "list")
    assert f"{GREEN}running" in text
    assert f"{RED}error" in text
    rows = [line.split() for line in ESCAPES.sub("", text).splitlines()]
    assert rows == [
        ["NAME", "STATE", "PORTS", "UUID"],
        ["a", "running", "-", listed["a"].status.uuid],
        ["b", "error", "-", listed["b"].status.uuid],
    ]


async def test_who_wants_no_colour_gets_none(fake: FakeDaemon) -> None:
    for variable in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        text = await shown(fake.url, "process", "list", env=variable)
        assert "running" in text
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)


async def test_a_narrow_terminal_folds_names_and_cuts_nothing(fake: FakeDaemon) -> None:
    lines = ESCAPES.sub("", await shown(fake.url, "process", "list", columns=90)).splitlines()
    assert max(map(len, lines)) <= 90
    assert UUID.format(1) in lines[1]
    assert "".join(line.split()[0] for line in lines[1:-1]) == LONG

    lines = ESCAPES.sub("", await shown(fake.url, "process", "list", columns=20)).splitlines()
    assert [lines[1].split()[1:], lines[-1].split()] == [
        ["running", "-", UUID.format(1)],
        ["b", "error", "-", UUID.format(2)],
    ]
    wide = ESCAPES.sub("", await shown(fake.url, "process", "list", "-o", "wide", columns=60)).splitlines()
    assert wide[1].split() == [LONG, "running", "-", UUID.format(1), *["-"] * 4]


async def test_a_terminal_gets_json_only_if_it_asks(fake: FakeDaemon) -> None:
    fake.list = []
    assert await shown(fake.url, "process", "list", "-o", "json") == "{}\n"
    assert "client: " in await shown(fake.url, "version", "--client")


async def test_a_watch_on_a_terminal_shows_each_change_and_ends_quietly_with_ctrl_c(daemon: Daemon) -> None:
    async with (
        on_terminal("--url", daemon.url, "process", "watch") as (watching, terminal),
        daemon.client() as client,
    ):
        await terminal.shows(f"Watching {daemon.url}, Ctrl-C ends it")
        created = await client.process_create(shell("r1", "exit 3"))
        uuid = created.status.uuid
        await terminal.shows(rf"\d\d:\d\d:\d\d\.\d{{3}}Z  r1 +starting  {uuid}\n")
        await terminal.shows(rf"\d\d:\d\d:\d\d\.\d{{3}}Z  r1 +error +{uuid}  exit status 3\n")
        await client.process_delete("r1")
        await terminal.shows(rf"r1 +deleted +{uuid}")
        assert f"{RED}error" in terminal.text
        assert await interrupted(watching) == 130
    assert "Traceback" not in terminal.text


async def test_a_watch_without_colour_has_none(fake: FakeDaemon) -> None:
    watch = on_terminal("--url", fake.url, "process", "watch", env={"NO_COLOR": "1"})
    async with watch as (_, terminal):
        await terminal.shows("Watching")
        fake.tell(process("running", error_msg="\x1b[31mred"))
        await terminal.shows(r"r1 +running +u1  \\x1b\[31mred\n")
        assert "\x1b" not in terminal.text


async def test_a_watch_ends_with_the_daemon_and_says_so(daemon: Daemon) -> None:
    async with on_terminal("--url", daemon.url, "process", "watch") as (watching, terminal):
        await terminal.shows("Watching")
        await daemon.stop()
        async with asyncio.timeout(patience(20)):
            assert await watching.wait() == 5
        await terminal.shows("Error: cannot .*ending")
