"""Whatever a process does, it is gone when it is said to be gone, and so is all it started."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest

from instance_manager.client import Client
from tests.support.daemon import Daemon, Watch, port_span, running_daemon, shell, sleeper, stub
from tests.support.patience import patience

Sized = Callable[[int, int], int]

# Starts a helper that leaves the session, ignores every polite signal and keeps stdout open.
HELPER = "setsid sh -c 'trap \"\" INT TERM HUP; echo helper; while :; do sleep 1000; done' &"


def zombies(daemon: Daemon) -> list[int]:
    children = psutil.Process(daemon.pid).children(recursive=True)
    return [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(300)
async def test_processes_deleted_right_after_their_creation_all_end(daemon: Daemon, sized: Sized) -> None:
    pairs = sized(60, 600)
    async with daemon.client() as client, Watch(client) as watch:
        for number in range(pairs):
            await client.process_create(sleeper(f"p{number}"))
            await client.process_delete(f"p{number}")
        await watch.until(lambda seen: sum(c.deleted for c in seen) == pairs, within=10)
        assert await client.process_list() == {}
        assert daemon.descendants() == []


async def test_a_tree_that_escapes_its_session_is_gone_within_the_grace_period_plus_5_s(
    daemon: Daemon,
) -> None:
    script = f"{HELPER} {HELPER} trap '' INT; echo up; while :; do sleep 1000; done"
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("tree", script))
        async with asyncio.timeout(patience(10)):
            lines = client.process_log("tree", follow=True)
            seen = [await anext(aiter(lines)) for _ in range(3)]
        assert sorted(seen) == ["helper", "helper", "up"]
        assert len(daemon.descendants()) >= 3
        await client.process_delete("tree")
        await watch.state("tree", "deleted", within=2 + 20)
        assert daemon.descendants() == []
        assert zombies(daemon) == []


async def test_an_exit_is_reported_at_once_although_a_grandchild_holds_stdout(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("brief", f"{HELPER} read line || exit 3"))
        change = await watch.state("brief", "error", within=10)
        assert change.status.error_msg == "exit status 3"
        await client.process_delete("brief")
        await watch.state("brief", "deleted", within=15)
        assert daemon.descendants() == []


@pytest.mark.timeout(300)
async def test_programs_that_exit_at_once_never_stay_running(daemon: Daemon, sized: Sized) -> None:
    count = sized(100, 1000)
    async with daemon.client() as client, Watch(client) as watch:
        for number in range(count):
            ports = {"port_count": 1} if number % 2 else {}
            await client.process_create(shell(f"p{number}", f"exit {number % 3}", **ports))
        ends = {"stopped", "error"}
        await watch.until(lambda seen: sum(c.status.state in ends for c in seen) >= count, within=10)
        states = {name: p.status.state for name, p in (await client.process_list()).items()}
        assert states == {f"p{n}": "error" if n % 3 else "stopped" for n in range(count)}


async def test_a_child_that_ignores_sigint_is_killed_at_the_grace_period_by_one_delete(
    tmp_path: Path,
) -> None:
    port = port_span()[0]
    async with (
        running_daemon(tmp_path, "--stop-timeout", "1", "--port-range", f"{port}-{port}") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await client.process_create(stub("stubborn", "--ignore", "SIGINT"))
        await watch.state("stubborn", "running")
        await client.process_delete("stubborn")
        change = await watch.state("stubborn", "deleted", within=1 + 10)
        assert "SIGINT" in change.status.error_msg
        assert "killed" in change.status.error_msg
        await client.process_create(stub("next"))
        assert (await watch.state("next", "running")).status.port_start == port


@pytest.mark.timeout(900)
async def test_a_delete_with_an_old_uuid_never_hits_the_process_that_took_the_name(
    daemon: Daemon, sized: Sized
) -> None:
    rounds = sized(100, 10_000)
    async with daemon.client() as client, Watch(client) as watch:
        uuid = (await client.process_create(sleeper("x"))).status.uuid
        for _ in range(rounds):
            old = uuid
            await client.process_delete("x", old)
            uuid = await recreate(client, old)
            for delete in (client.process_delete, client.instance_delete):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await delete("x", old)
                assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await client.process_get("x")).status.uuid == uuid
        await client.process_delete("x", uuid)
        await watch.until(lambda seen: sum(c.deleted for c in seen) == rounds + 1)


async def recreate(client: Client, old: str) -> str:
    """Create the process again as soon as its name is free, while deletes with the old UUID hail down."""

    async def hail() -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await client.process_delete("x", old)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await client.instance_delete("x", old)

    hailing = asyncio.create_task(hail())
    try:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return (await client.process_create(sleeper("x"))).status.uuid
    finally:
        hailing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hailing


async def test_sigterm_ends_every_process_tells_the_watchers_and_exits_with_0(tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, "--shutdown-grace", "2") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        names = [f"p{n}" for n in range(20)]
        for name in names:
            await client.process_create(shell(name, "trap '' INT; echo up; while :; do sleep 1000; done"))
        for name in names:
            async with asyncio.timeout(patience(10)):
                assert await anext(aiter(client.process_log(name, follow=True))) == "up"
        assert await daemon.stop(within=2 + 20) == 0
        await watch.until(lambda seen: {c.spec.name for c in seen if c.deleted} == set(names))
        assert daemon.descendants() == []
