"""Watchers are told each change once and in order, and cannot harm the daemon."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from tests.support.daemon import Daemon, Watch, live, shell, sleeper, unique
from tests.support.patience import patience

Sized = Callable[[int, int], int]
LIFE = ["starting", "running", "stopping", "stopped", "deleted"]


@pytest.mark.timeout(600)
async def test_ten_watchers_see_every_transition_of_every_process_once_and_in_order(
    daemon: Daemon, sized: Sized
) -> None:
    count = sized(60, 1000)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(daemon.client()) for _ in range(10)]
        watches = [await stack.enter_async_context(Watch(client)) for client in clients]
        uuids = []
        for begin in range(0, count, 20):
            names = [f"p{n}" for n in range(begin, begin + 20)]
            uuids += await asyncio.gather(*(live(clients[0], watches[0], name) for name in names))
        assert unique(uuids)
        for watch in watches:
            await watch.until(lambda seen: sum(c.deleted for c in seen) == count)
            assert watch.lives() == dict.fromkeys(uuids, LIFE)


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_a_subscriber_that_never_reads_costs_little_and_delays_nobody(daemon: Daemon) -> None:
    """At full size: 100,000 events."""
    process = psutil.Process(daemon.pid)
    async with daemon.client() as stuck, daemon.client() as client, Watch(client) as watch:
        await live(client, watch, "warm-up")
        before = process.memory_info().rss
        stream = await stuck.process_watch().accepted()
        lags = []
        for begin in range(0, 20_000, 20):
            watch.seen.clear()
            names = [f"p{n}" for n in range(begin, begin + 20)]
            await asyncio.gather(*(live(client, watch, name) for name in names))
            sent = time.perf_counter()
            await client.process_create(sleeper("lag"))
            await watch.state("lag", "starting")
            lags.append(time.perf_counter() - sent)
            await client.process_delete("lag")
            await watch.state("lag", "deleted")
        assert process.memory_info().rss - before <= 16 << 20
        assert sorted(lags)[int(len(lags) * 0.99)] < patience(1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in stream:
                pass
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


PATHS = {
    "watch": "/ProcessManagerService/ProcessWatch",
    "log": "/ProcessManagerService/ProcessLog",
    "pings": "/imrpc.InstanceService/InstanceWatch",
    "events": "/instance_manager.v1.EventService/Watch",
    "health": "/grpc.health.v1.Health/Watch",
    "reflection": "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
}


async def open_and_cancel(daemon: Daemon, method: str) -> None:
    """Open a stream on a connection of its own, wait until the daemon has taken it, go away."""
    target = daemon.url.replace("unix://", "unix:")
    # Channels to one address share their connection unless they are told not to.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        call: Any
        if method == "reflection":
            call = channel.stream_stream(PATHS[method])()
            await call.write(b"\x3a\x00")  # list_services
            await call.read()
        else:
            metadata = [("instance-manager-follow", "true")] if method == "log" else []
            open_stream: Any = channel.unary_stream(PATHS[method])
            call = open_stream(b"\x0a\x01a" if method == "log" else b"", metadata=metadata)
            await (call.initial_metadata() if method in {"watch", "pings"} else call.read())
        call.cancel()


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", PATHS)
async def test_streams_that_are_opened_and_cancelled_leave_nothing_in_the_daemon(
    daemon: Daemon, sized: Sized, method: str
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("a", "echo up; exec sleep 1000"))
        await watch.state("a", "running")
    await open_and_cancel(daemon, method)
    before = descriptors(daemon)
    for _ in range(sized(5, 500)):
        await asyncio.gather(*(open_and_cancel(daemon, method) for _ in range(20)))
    async with daemon.client() as client, asyncio.timeout(patience(10)):
        while descriptors(daemon) > before + 1:
            await client.health()
        # The watchers are gone too: the daemon ends at once although it ends every stream in order.
        assert await daemon.stop(within=15) == 0
