"""The server and its connections: those that have gone silent, and those that are only quiet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.api import server as serving
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.server import GrpcServer
from instance_manager.app.audit import AuditTrail
from instance_manager.core.addresses import Address
from tests.support.flood import PREFACE, SETTINGS
from tests.support.patience import patience
from tests.support.proxy import proxied
from tests.support.small_service import SmallService

Started = Callable[..., Any]
FOLLOW = "/tests.Small/Follow"
THREE_PINGS = 35
"""Seconds."""


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[int]:
    """Serve the small service, and return the port."""
    chain = InterceptorChain(AuditTrail(lambda: 1.0), RpcMetrics(), **options)
    server = GrpcServer([Listener(Offset.PROCESS, (SmallService(),))], chain)
    port = server.bind(Address("127.0.0.1", 0))[0].port
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def channel(port: int, *options: tuple[str, int]) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=(("grpc.use_local_subchannel_pool", 1), *options)
    )


def followed(connection: grpc.aio.Channel, **options: Any) -> Any:
    call: Any = connection.unary_stream(FOLLOW)
    return call(b"", **options)


async def test_a_watcher_that_no_longer_answers_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "KEEPALIVE_INTERVAL_MS", 200)
    monkeypatch.setattr(serving, "KEEPALIVE_TIMEOUT_MS", 300)
    async with (
        started(max_streams=1) as port,
        proxied(port) as proxy,
        channel(proxy.port) as silent,
        channel(port) as other,
        asyncio.timeout(patience(30)),
    ):
        stream = followed(silent)
        await stream.read()
        with pytest.raises(grpc.aio.AioRpcError, match="--max-streams is 1"):
            await followed(other).read()
        await proxy.cut()
        while not await accepted(followed(other)):
            continue


async def accepted(stream: Any) -> bool:
    """Return whether a stream is served, and not refused over the limit."""
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


async def test_a_watcher_that_is_only_quiet_keeps_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "KEEPALIVE_INTERVAL_MS", 100)
    monkeypatch.setattr(serving, "KEEPALIVE_TIMEOUT_MS", 5_000)
    async with started() as port, channel(port) as connection:
        stream = followed(connection)
        await stream.read()
        waiting = asyncio.create_task(stream.read())
        # Long enough for twenty pings: there is nothing else to wait for.
        assert await asyncio.wait([waiting], timeout=2) == (set(), {waiting})
        waiting.cancel()


async def test_connections_without_calls_do_not_keep_others_out_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "HANDSHAKE_TIMEOUT_MS", 500)
    monkeypatch.setattr(serving, "MAX_IDLE_MS", 500)
    most = ("grpc.max_allowed_incoming_connections", 5)
    monkeypatch.setattr(
        serving, "_OPTIONS", (*(each for each in serving._OPTIONS if each[0] != most[0]), most)
    )
    async with started() as port, channel(port) as watching:
        stream = followed(watching)
        await stream.read()
        waiting = asyncio.create_task(stream.read())
        async with asyncio.timeout(patience(30)):
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            for _, writer in opened[2:]:
                writer.write(PREFACE + SETTINGS)
            async with channel(port) as newcomer:
                await followed(newcomer, wait_for_ready=True).read()
            for reader, writer in opened:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                writer.close()
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.full
@pytest.mark.timeout(90)
@pytest.mark.parametrize("streaming", [True, False], ids=["in a stream", "between calls"])
async def test_a_client_may_ping_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    """As Go clients do; a server may punish a client by ending its connection."""
    monkeypatch.setattr(serving, "MAX_IDLE_MS", 1000 * 2 * THREE_PINGS)
    pings = (
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    async with started() as port, channel(port, *pings) as connection:
        stream = followed(connection)
        await stream.read()
        if not streaming:
            stream.cancel()
        states: list[grpc.ChannelConnectivity] = []
        state = connection.get_state()
        assert state is grpc.ChannelConnectivity.READY
        try:
            async with asyncio.timeout(THREE_PINGS):
                while True:
                    await connection.wait_for_state_change(state)
                    state = connection.get_state()
                    states.append(state)
        except TimeoutError:
            assert states == []
