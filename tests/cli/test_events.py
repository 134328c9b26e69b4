"""`instance-manager events`: what has changed, what changes, and what was lost."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from instance_manager.cli.event_lines import gap_in_words, state_change
from instance_manager.client import Gap, Position
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb
from tests.cli.test_completion import completed
from tests.integration.test_adoption import node
from tests.support.cli import interrupted, ok, on_terminal, run, started
from tests.support.daemon import Daemon, Watch, shell, sleeper
from tests.support.fake_daemon import FakeDaemon, fake_daemon
from tests.support.fake_events import FakeEvents
from tests.support.node import Node
from tests.support.patience import patience

__all__ = ["node"]

LIFE = [
    "new -> starting",
    "starting -> running",
    "running -> stopping",
    "stopping -> stopped",
    "stopped -> deleted",
]


@pytest.fixture
def events() -> FakeEvents:
    return FakeEvents()


@pytest.fixture
async def fake(events: FakeEvents, tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with fake_daemon(f"unix:{tmp_path}/fake.sock", events.handler) as running:
        yield running


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def ago(seconds: int) -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return Timestamp(seconds=now.seconds - seconds)


# --- against a daemon ---


async def test_a_whole_life_is_shown_also_when_it_is_over(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        uuid = (await client.process_create(sleeper("vol-r-1"))).status.uuid
        await watch.state("vol-r-1", "running")
        await client.process_delete("vol-r-1")
        await watch.state("vol-r-1", "deleted")
        await client.process_create(shell("vol-e-0", "exit 3"))
        await watch.state("vol-e-0", "error")
        last = (await client.event_history()).revision

    text = (await ok(daemon, "events", "--for", "vol-r-1", "-o", "text")).out.splitlines()
    assert cells(text[0]) == ["LAST SEEN", "NAME", "STATE CHANGE", "UUID", "REASON"]
    assert [cells(line)[1:4] for line in text[1:]] == [["vol-r-1", change, uuid] for change in LIFE]
    assert all(re.fullmatch(r"\d+s", cells(line)[0]) for line in text[1:])

    wide = (await ok(daemon, "events", "--type", "engine", "-o", "wide", "--tail", "1")).out.splitlines()
    assert cells(wide[0])[:3] == ["REVISION", "TIME", "TYPE"]
    revision, time, kind, name, change, _, pid, how, reason = cells(wide[1])
    assert (revision, kind, name, how, reason) == (str(last), "engine", "vol-e-0", "3", "exit status 3")
    assert change.endswith(" -> error")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert int(pid) > 1

    lines = [json.loads(line) for line in (await ok(daemon, "events", "--since", "1h")).out.splitlines()]
    assert [line["revision"] for line in lines] == [str(number) for number in range(1, last + 1)]
    assert lines[0]["instance"]["name"] == "vol-r-1"
    assert {"previous_state", "reason", "deleted", "time"} < set(lines[0])


async def test_a_watch_goes_on_where_it_was_when_the_daemon_was_killed(node: Node) -> None:
    url = node.daemon.url
    watching = on_terminal("--url", url, "events", "-w", "-o", "json", stdout=asyncio.subprocess.PIPE)
    async with watching as (watch, terminal):
        assert watch.stdout is not None
        await terminal.shows(f"Watching {url}, Ctrl-C ends it")
        async with node.client() as client, Watch(client) as seen:
            await client.process_create(sleeper("r1"))
            await seen.state("r1", "running")
        await node.kill()
        await terminal.shows("Notice: the connection is lost .*; waiting for the instance manager")
        await node.restart()
        async with node.client() as client, Watch(client) as seen:
            await client.process_delete("r1")
            await seen.state("r1", "deleted")
        async with asyncio.timeout(patience(20)):
            lines = [json.loads(await watch.stdout.readline()) for _ in range(5)]
        assert [line["revision"] for line in lines] == ["1", "2", "3", "4", "5"]
        assert lines[-1]["deleted"]
        assert "lost here" not in terminal.text
        assert await interrupted(watch) == 130


async def test_names_of_instances_are_offered(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for name in ("r1", "r2", "e1"):
            await client.process_create(sleeper(name))
    url = {"INSTANCE_MANAGER_URL": daemon.url}
    assert await completed("instance-manager events --for r", **url) == ["plain,r1", "plain,r2"]
    assert await completed("instance-manager instance delete e", **url) == ["plain,e1"]
    assert "plain,log-level" in await completed("instance-manager log", **url)


# --- against one that remembers and forgets what a test says ---


async def test_nothing_remembered_is_an_empty_answer_and_a_word_about_it(fake: FakeDaemon) -> None:
    for output in ("json", "text"):
        result = await run("--url", fake.url, "events", "-o", output)
        assert (result.code, result.out, result.err) == (0, "", "No changes are remembered.\n")
    chosen = await run("--url", fake.url, "events", "--for", "nobody")
    assert (chosen.code, chosen.out, chosen.err) == (0, "", "No such changes are remembered.\n")


async def test_since_and_tail_choose_among_the_past(fake: FakeDaemon, events: FakeEvents) -> None:
    for age in (7200, 600, 90, 0):
        events.happen(f"r{age}", "running", time=ago(age))

    async def names(*options: str) -> list[str]:
        out = (await run("--url", fake.url, "events", *options)).out
        return [json.loads(line)["instance"]["name"] for line in out.splitlines()]

    assert await names("--since", "30m") == ["r600", "r90", "r0"]
    assert await names("--since", "300") == ["r90", "r0"]
    assert await names("--tail", "1") == ["r0"]
    text = (await run("--url", fake.url, "events", "-o", "text")).out.splitlines()
    assert [cells(line)[0] for line in text[1:3]] == ["2h", "10m"]
    refused = await run("--url", fake.url, "events", "--since", "soon")
    assert refused.code == 2
    assert "cannot use the duration 'soon'" in refused.err


async def test_on_a_terminal_a_watch_begins_with_the_past_and_has_one_header(
    fake: FakeDaemon, events: FakeEvents
) -> None:
    events.happen("r1", "starting")
    async with on_terminal("--url", fake.url, "events", "-w", columns=200) as (watch, terminal):
        await terminal.shows(r"LAST SEEN +NAME.*\n\d+s +r1 +new -> starting +u-r1")
        await terminal.shows("Watching")
        events.happen("a-name-that-is-rather-long", "running", "starting", reason="\x1b[31mready")
        await terminal.shows(r"a-name-that-is-rather-long +starting -> running +u-a-.* \\x1b\[31mready\n")
        assert terminal.plain.count("LAST SEEN") == 1
        assert "\x1b[32mstarting -> running" in terminal.text
        assert await interrupted(watch) == 130
    assert "Traceback" not in terminal.text


async def test_changes_that_are_lost_are_told_beside_those_that_are_not(
    fake: FakeDaemon, events: FakeEvents
) -> None:
    async with started("--url", fake.url, "events", "-w", "--type", "replica") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        events.happen("r1", "starting")
        async with asyncio.timeout(patience(20)):
            assert json.loads(await watch.stdout.readline())["revision"] == "1"
            await events.watched.acquire()
            events.bookmark()
            events.cut(grpc.StatusCode.UNAVAILABLE)
            events.happen("r1", "running")
            events.happen("r1", "stopping")
            events.forget()
            events.happen("r1", "stopped")
            assert await watch.stderr.readline() == (
                b"Notice: the connection is lost (as the test says); waiting for the instance manager\n"
            )
            assert await watch.stderr.readline() == (
                b"Notice: 2 changes were lost here: cannot go back so far\n"
            )
            assert json.loads(await watch.stdout.readline())["revision"] == "4"
    assert list(events.requests[-1].filter.types) == ["replica"]


def test_a_gap_tells_how_much_is_lost_if_anybody_knows() -> None:
    lost = Gap(Position(1, "e1"), Position(4, "e1"), "why")
    assert gap_in_words(lost) == "3 changes were lost here: why"
    one = Gap(Position(1, "e1"), Position(2, "e1"), "why")
    assert gap_in_words(one) == "1 change was lost here: why"
    for unknown in (Gap(Position(1, "e1"), Position(4, "e2"), "why"), Gap(None, None, "why")):
        assert gap_in_words(unknown) == "an unknown number of changes was lost here: why"


@pytest.mark.parametrize(
    ("previous", "state", "deleted", "shown"),
    [
        ("", "starting", False, "new -> starting"),
        ("running", "running", False, "running"),
        ("stopped", "stopped", True, "stopped -> deleted"),
    ],
)
def test_a_state_that_stays_is_no_change_of_state(
    previous: str, state: str, deleted: bool, shown: str
) -> None:
    event = pb.Event(instance=pb.Instance(state=state), previous_state=previous, deleted=deleted)
    assert state_change(event) == shown
