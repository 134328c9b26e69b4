"""Processes outlive the daemon, and the next one takes them over as they are."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.platform import proc
from tests.support.daemon import (
    BIN,
    SLEEP,
    Daemon,
    Watch,
    event_of,
    newcomer,
    refusal,
    running_daemon,
    shell,
    sleeper,
    stub,
)
from tests.support.node import Node, on_node
from tests.support.patience import patience


@pytest.fixture(params=["auto", "session"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    async with on_node(tmp_path, "--containment", request.param) as started:
        yield started


async def settled(client: Client, *specs: pb.ProcessSpec) -> dict[str, bytes]:
    """Create processes, wait until they run and return the list, serialized."""
    async with Watch(client) as watch:
        for spec in specs:
            await client.process_create(spec)
            await watch.state(spec.name, "running")
    return await listing(client)


async def listing(client: Client) -> dict[str, bytes]:
    return {name: p.SerializeToString() for name, p in (await client.process_list()).items()}


async def past_starting(client: Client) -> None:
    """Wait until nothing is starting: without a journal, what has ports is so until it has answered."""
    async with asyncio.timeout(patience(20)), Watch(client) as watch:
        for name, process in (await client.process_list()).items():
            if process.status.state == "starting":
                await watch.state(name, "running")


def leave_alone(_: Node) -> None:
    """The journal is as the daemon left it."""


def fill_with_noise(node: Node) -> None:
    node.lose_journal()
    node.journal.write_bytes(os.urandom(10_000))


def cut_off(node: Node) -> None:
    node.journal.write_bytes(node.journal.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [leave_alone, Node.lose_journal, fill_with_noise, cut_off])
async def test_everything_is_as_it_was_after_the_daemon_was_killed(
    node: Node, damage: Callable[[Node], None]
) -> None:
    """Some kinds of damage; the journal's own tests have them all."""
    async with node.client() as client:
        before = await settled(
            client, stub("r", "--log-rate", "5", ports=3), sleeper("s"), stub("vol-e-0", kind="engine")
        )
    await node.daemon.has_descendants(3)
    pids = node.daemon.descendants()
    await node.kill()
    assert sorted(node.daemon.descendants()) == sorted(pids)
    damage(node)
    await node.restart()
    async with node.client() as client:
        await past_starting(client)
        assert await listing(client) == before
        assert sorted(node.daemon.descendants()) == sorted(pids)


async def test_a_process_that_was_taken_over_is_deleted_with_all_its_descendants(node: Node) -> None:
    async with node.client() as client:
        await settled(client, stub("r", "--helpers", "2", "--ignore", "SIGINT"))
    await node.daemon.has_descendants(3)
    await node.kill()
    await node.restart()
    async with node.client() as client, Watch(client) as watch:
        await client.process_delete("r")
        await watch.state("r", "deleted", within=2 + 20)
        assert node.daemon.descendants() == []


async def test_a_stop_that_was_under_way_goes_on(node: Node) -> None:
    async with node.client() as client:
        await settled(client, stub("r", "--ignore", "SIGINT"))
        await client.process_delete("r")
    await node.kill()
    await node.restart()
    async with node.client() as client, Watch(client) as watch:
        assert (await client.process_get("r")).status.state == "stopping"
        await watch.state("r", "deleted", within=2 + 20)


async def test_a_start_that_was_under_way_goes_on(node: Node) -> None:
    async with node.client() as client:
        created = await client.process_create(stub("r", "--ready-after", "3"))
    await node.kill()
    await node.restart()
    async with node.client() as client, Watch(client) as watch:
        assert (await client.process_get("r")).status.state == "starting"
        assert (await watch.state("r", "running")).status.uuid == created.status.uuid


async def test_a_replace_that_was_under_way_goes_on(node: Node, tmp_path: Path) -> None:
    other = tmp_path / "next"
    other.write_text(f'#!/bin/sh\nexec {BIN} "$@"\n')
    other.chmod(0o755)
    upgraded = stub("e", "--ready-after", str(patience(3)))
    upgraded.binary = str(other)
    async with node.client() as client:
        await settled(client, stub("e"))
        old = (await client.process_get("e")).status.uuid
        replacing = asyncio.create_task(client.process_replace(upgraded))
        new = (await newcomer(client, old)).instance.uuid
        await node.kill()
        replacing.cancel()
    await node.restart()
    async with node.client() as client, Watch(client) as watch:
        assert (await client.process_get("e")).status.uuid == old
        assert (await watch.state("e", "running")).status.uuid == new
        assert (await event_of(client, lambda event: event.deleted)).instance.uuid == old
        now = await client.process_get("e")
        assert (now.status.uuid, now.status.state) == (new, "running")
        assert watch.lives() == {new: ["running"]}


async def test_a_process_that_ended_meanwhile_is_reported_once_without_guard_as_unknown(node: Node) -> None:
    async with node.client() as client:
        await settled(client, sleeper("s"))
    await node.daemon.has_descendants(1)
    await node.kill()
    (pid,) = node.daemon.descendants()
    os.kill(pid, signal.SIGKILL)
    await node.restart()
    async with node.client() as client, Watch(client) as watch:
        status = (await client.process_get("s")).status
        assert status.state == "error"
        assert "exit status unknown" in status.error_msg
        await client.process_delete("s")
        await watch.state("s", "deleted")


async def test_a_recycled_pid_is_never_touched(node: Node) -> None:
    async with node.client() as client:
        await settled(client, sleeper("s"))
    await node.daemon.has_descendants(1)
    await node.kill()
    for pid in node.daemon.descendants():
        os.kill(pid, signal.SIGKILL)
    foreign = await asyncio.create_subprocess_exec(SLEEP, "1000")
    try:
        # A number comes round only after all others, so never within one tick of the clock.
        theirs = proc.read_stat(foreign.pid)
        assert theirs is not None
        identity = json.dumps([foreign.pid, theirs.start_time - 1])
        with sqlite3.connect(node.journal) as connection:
            connection.execute(
                "UPDATE processes SET process = json_set(process, '$.identity', json(?))", (identity,)
            )
        connection.close()
        await node.restart()
        async with node.client() as client, Watch(client) as watch:
            assert (await client.process_get("s")).status.state == "error"
            await client.process_delete("s")
            await watch.state("s", "deleted")
        assert foreign.returncode is None
        os.kill(foreign.pid, 0)
    finally:
        foreign.kill()
        assert await foreign.wait() == -signal.SIGKILL


async def test_what_is_left_of_an_instance_keeps_its_name_when_the_journal_is_lost(node: Node) -> None:
    """Whether its first process lives cannot be told then."""
    script = "setsid sh -c 'echo helper; exec sleep 1000' & read never; exec sleep 1000"
    spec = shell("a", script)
    async with node.client() as client:
        await client.process_create(spec)
        async with asyncio.timeout(patience(10)):
            lines = client.process_log("a", follow=True)
            assert await anext(aiter(lines)) == "helper"
    await node.kill()
    node.lose_journal()
    leaders = [pid for pid in node.daemon.descendants() if b"helper" in command(pid)]
    for pid in leaders:
        os.kill(pid, signal.SIGKILL)
    await node.restart()
    async with node.client() as client:
        assert list(await client.process_list()) == ["a"]
        told = await node.daemon.logged(lambda line: line["event"] == "adopted without journal")
        (contained,) = {line["kind"] for line in node.daemon.lines if line["event"] == "containment"}
        # A cell tells which process was the first one, whatever that shows now.
        changed = {"command_line": "another than it was started with"} if contained == "session" else {}
        assert told["name"] == "a"
        assert {key: told[key] for key in ("command_line",) if key in told} == changed
        async with Watch(client) as watch:
            await client.process_delete("a")
            await watch.state("a", "deleted")
    assert node.daemon.descendants() == []


async def test_an_instance_that_has_executed_another_program_is_adopted_without_a_journal(node: Node) -> None:
    async with node.client() as client, Watch(client) as watch:
        await client.process_create(shell("a", "echo there; exec sleep 1000"))
        await watch.state("a", "running")
        async with asyncio.timeout(patience(20)):
            assert await anext(aiter(client.process_log("a", follow=True))) == "there"
        before = await listing(client)
    await node.kill()
    node.lose_journal()
    await node.restart()
    async with node.client() as client:
        assert await listing(client) == before


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_with_on_stop_leave_the_daemon_ends_alone_and_the_next_one_takes_over(tmp_path: Path) -> None:
    async with left_alone(tmp_path) as (node, before, pids):
        assert sorted(node.daemon.descendants()) == sorted(pids)
        await node.restart("--on-stop", "terminate")
        async with node.client() as client:
            assert await listing(client) == before


@asynccontextmanager
async def left_alone(folder: Path) -> AsyncIterator[tuple[Node, dict[str, bytes], list[int]]]:
    async with on_node(folder, "--on-stop", "leave") as node:
        async with node.client() as client:
            before = await settled(client, stub("r", ports=2), sleeper("s"))
        await node.daemon.has_descendants(2)
        pids = node.daemon.descendants()
        assert await node.daemon.stop() == 0
        yield node, before, pids


async def test_two_daemons_never_share_a_state_directory(daemon: Daemon) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(BIN), "daemon", "--listen", f"unix://{daemon.folder}/other.sock"),
        *("--state-dir", str(daemon.folder / "state")),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(patience(20)):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert "another daemon uses it" in refusal(err.decode())


async def test_a_journal_that_cannot_be_written_is_told_by_health_and_stops_nobody(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "journal.db").mkdir(parents=True)
    async with running_daemon(tmp_path) as daemon, daemon.client() as client, Watch(client) as watch:
        assert await client.health("journal") == "NOT_SERVING"
        assert await client.health() == "SERVING"
        await client.process_create(sleeper("s"))
        await watch.state("s", "running")
        await daemon.logged(lambda line: "journal" in line["event"] and line["level"] == "error")


async def test_a_sound_journal_is_told_by_health(daemon: Daemon) -> None:
    async with daemon.client() as client:
        assert await client.health("journal") == "SERVING"
