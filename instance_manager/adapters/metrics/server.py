"""A small HTTP server on the daemon's event loop: GET and HEAD, one request per connection, with limits."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

import structlog

from instance_manager.adapters.metrics.endpoints import Response
from instance_manager.core.addresses import Address, parse_address
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.platform.background import Background
from instance_manager.platform.listening import AddressError, AddressInUseError, address_of, reserve

log = structlog.get_logger(__name__)

WORK = "metrics-server"
"""Name of this background work."""
_MAX_REQUEST = 8192
"""Largest size of a request in bytes."""
_MAX_CONNECTIONS = 32
_TIMEOUT = 10.0
"""Longest duration of a connection in seconds."""
RETRY_SECONDS = 5.0
"""Between two attempts to listen on an address that cannot be listened on."""
_METHODS = ("GET", "HEAD")
_TEXT = "text/plain; charset=utf-8"


def metrics_address(text: str) -> Address:
    """Read HOST:PORT.

    Raises:
        InvalidArgumentError: if it is none; the message says what to write.
    """
    with suppress(InvalidArgumentError):
        address = parse_address(text)
        if not address.path:
            return address
    raise InvalidArgumentError(
        f"cannot use the address {text!r} for metrics: write HOST:PORT or [IPV6]:PORT, or nothing for none"
    )


class MetricsServer:
    """Serves endpoints over HTTP."""

    def __init__(self, get: Callable[[str], Awaitable[Response]], background: Background) -> None:
        """Serve nothing yet.

        Args:
            get: returns the response at a path.
            background: where unexpected errors are told and counted.
        """
        self._get = get
        self._background = background
        self._servers: list[asyncio.Server] = []
        self._open: dict[asyncio.Task[None], None] = {}
        """The oldest first."""
        self._opening: asyncio.Task[None] | None = None
        self._told = ""
        """Why it could not be listened on at the last attempt."""

    async def start(self, address: Address, report: Callable[[bool], None]) -> None:
        """Listen on every address that a host has, now or as soon as that is possible.

        Args:
            address: what to listen on.
            report: called with whether it is listened on, at once and when that has changed.
        """
        if not await self._attempt(address, report):

            async def again() -> None:
                if await self._attempt(address, report):
                    opening.cancel()

            opening = self._opening = self._background.every(WORK, RETRY_SECONDS, again)

    async def _attempt(self, address: Address, report: Callable[[bool], None]) -> bool:
        try:
            bound = await self.open(address)
        except AddressError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("no metrics are served", reason=self._told, retry_seconds=RETRY_SECONDS)
                report(False)
            return False
        log.info("metrics are served", addresses=[str(each) for each in bound])
        report(True)
        return True

    async def open(self, address: Address) -> list[Address]:
        """Listen on every address that a host has, and return them.

        Raises:
            AddressInUseError: if another program listens on one of them.
            AddressError: if the address is not one of this machine, or cannot be used otherwise.
        """
        with reserve(address, "--metrics-listen") as reserved:
            bound = [address_of(each) for each in reserved]
            for each in reserved:
                try:
                    server = await asyncio.start_server(
                        self._accept, sock=each.dup(), limit=_MAX_REQUEST, backlog=_MAX_CONNECTIONS
                    )
                except OSError as error:
                    await self.close()
                    raise AddressInUseError(
                        f"cannot listen on {address}: it has just been taken by another program; end "
                        "it, or choose another address with --metrics-listen"
                    ) from error
                self._servers.append(server)
            return bound

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - streams run this in one
        if len(self._open) >= _MAX_CONNECTIONS:
            # The oldest: whoever keeps connections open must not make a liveness probe fail.
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._serve(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has disconnected, is too slow, or the daemon is shutting down
        except Exception as error:  # noqa: BLE001 - one client's connection ends, and nothing else
            self._background.failed(WORK, error)
        else:
            self._background.succeeded(WORK)
        finally:
            writer.transport.abort()
            self._open.pop(task, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            response, method = (
                _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too long"),
                "",
            )
        else:
            method, response = await self._answer(head)
        writer.write(_head(response))
        if method != "HEAD":
            writer.write(response.body)
        await writer.drain()

    async def _answer(self, head: bytes) -> tuple[str, Response]:
        """Return the method of a request and the answer to it."""
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
            return "", _error(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
        method, target, _ = words
        if method not in _METHODS:
            return method, _error(
                HTTPStatus.METHOD_NOT_ALLOWED, f"only {' and '.join(_METHODS)} are possible"
            )
        try:
            return method, await self._get(target.partition("?")[0])
        except Exception:
            log.exception("unexpected error while answering", target=target)
            return method, _error(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a defect; see the daemon's log")


def _error(status: HTTPStatus, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), _TEXT)


def _head(response: Response) -> bytes:
    allow = f"Allow: {', '.join(_METHODS)}\r\n" if response.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    return (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{allow}"
        "Connection: close\r\n\r\n"
    ).encode()
