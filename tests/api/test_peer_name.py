"""Handlers of gRPC itself behind the check of the peer name: once it has passed, they do what they did."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.api.interceptors.arrivals import Arrivals
from instance_manager.api.interceptors.foreign import guard
from instance_manager.platform.loopback import is_loopback
from tests.support.patience import patience

PATH = "/S/M"


async def unary_unary(request: bytes, _: Any) -> bytes:
    return request * 2


def not_asynchronous(request: bytes, _: Any) -> bytes:
    return request * 2


async def generating(request: bytes, _: Any) -> AsyncIterator[bytes]:
    yield request
    yield request * 2


async def writing(request: bytes, context: Any) -> None:
    await context.write(request)
    await context.write(request * 2)


async def collecting(requests: Any, _: Any) -> bytes:
    return b"".join([request async for request in requests])


async def echoing(requests: Any, _: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request * 2


KINDS: list[tuple[Any, str, list[bytes]]] = [
    (unary_unary, "unary_unary", [b"abab"]),
    (not_asynchronous, "unary_unary", [b"abab"]),
    (generating, "unary_stream", [b"ab", b"abab"]),
    (writing, "unary_stream", [b"ab", b"abab"]),
    (collecting, "stream_unary", [b"abab"]),
    (echoing, "stream_stream", [b"abab", b"abab"]),
]


class Server:
    """One method behind the check."""

    def __init__(self, folder: Path, function: Any, kind: str, check: Any) -> None:
        # An address of its own: gRPC would share the connection to a server that has just ended.
        self.target = f"unix:{folder}/{function.__name__}.sock"
        self.kind = kind
        self._server = grpc.aio.server()
        handler = getattr(grpc, f"{kind}_rpc_method_handler")(function)

        @asynccontextmanager
        async def checked(context: Any) -> AsyncIterator[None]:
            await check(context)
            yield

        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("S", {"M": guard(handler, Arrivals().receive, checked)})]
        )
        self._server.add_insecure_port(self.target)

    async def answers(self, requests: Any = (b"ab", b"ab")) -> list[bytes]:
        await self._server.start()
        try:
            async with grpc.aio.insecure_channel(self.target) as channel:
                given = aiter(requests) if hasattr(requests, "__aiter__") else iter(requests)
                given = given if self.kind.startswith("stream") else b"ab"
                call = getattr(channel, self.kind)(PATH)(given, timeout=patience(20))
                if self.kind.endswith("unary"):
                    return [await call]
                return [answer async for answer in call]
        finally:
            await self._server.stop(None)


async def passes(_: Any) -> None:
    await asyncio.sleep(0)


async def silence() -> AsyncIterator[bytes]:
    """Requests that never come: a client that writes while it is refused would fail on its side first."""
    await asyncio.Event().wait()
    yield b""


async def refuses(context: Any) -> None:
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")


@pytest.mark.parametrize(
    ("function", "kind", "answers"), KINDS, ids=lambda value: getattr(value, "__name__", "")
)
async def test_behind_a_check_that_passes_every_kind_of_handler_answers_as_before(
    tmp_path: Path, function: Any, kind: str, answers: list[bytes]
) -> None:
    assert await Server(tmp_path, function, kind, passes).answers() == answers


@pytest.mark.parametrize(
    ("function", "kind", "answers"), KINDS, ids=lambda value: getattr(value, "__name__", "")
)
async def test_behind_a_check_that_fails_no_kind_of_handler_runs(
    tmp_path: Path, function: Any, kind: str, answers: list[bytes]
) -> None:
    del function, answers
    ran: list[Any] = []

    async def handler(*given: Any) -> None:
        ran.append(given)

    async def generator(*given: Any) -> AsyncIterator[bytes]:
        ran.append(given)
        yield b""

    for each in (handler, generator) if kind.endswith("stream") else (handler,):
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await Server(tmp_path, each, kind, refuses).answers(silence())
    assert ran == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "::1"])
def test_a_loopback_address_is_private(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "[::]", "::", "192.0.2.1", "[2001:db8::1]", "no such host", "0"]
)
def test_any_other_address_is_not_and_one_that_cannot_be_told_neither(host: str) -> None:
    assert not is_loopback(host)
