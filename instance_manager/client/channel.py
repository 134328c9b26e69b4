"""The connection to an instance manager, and how methods are called over it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from instance_manager.core.addresses import Address, parse_address
from instance_manager.core.certificates import PEER_NAME, CertificateSet
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.pb.imrpc.imrpc_pb2 import LogResponse
from instance_manager.platform import contract
from instance_manager.platform.channels import open_channel

DEFAULT_TIMEOUT = 30.0
"""Timeout in seconds of calls that do not stream."""

MAX_ANSWER_BYTES = 32 << 20
"""Largest answer that is accepted: a daemon sends a history of up to 16 MiB, and lists of 4 MiB."""

LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
"""Status codes of a stream whose connection was lost, whose daemon is ending, or that was read too slowly."""

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # How long to wait for an address that does not answer.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    # A daemon that comes back is found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How soon streams of a peer that has disappeared end (a node that lost power, for example).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A new client connects at once, even if an earlier one to the same address is backing off.
    ("grpc.use_local_subchannel_pool", 1),
)

Response = TypeVar("Response", bound=Message)


def address_of(url: str) -> Address:
    """Return the address of tcp://HOST:PORT, unix://PATH or HOST:PORT.

    Raises:
        ValueError: if it is none of them.
    """
    with suppress(InvalidArgumentError):
        address = parse_address(url)
        if address.host or address.path:
            return address
    raise ValueError(f"cannot use the URL {url!r}: write tcp://HOST:PORT or unix://PATH")


class Stream(Generic[Response]):
    """A stream of messages from the daemon: iterate over it, cancel it when it is no longer wanted."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def accepted(self, within: float | None = None) -> Self:
        """Wait until the daemon has accepted the call; the stream has everything from then on.

        Args:
            within: seconds after which it counts as accepted: a server in Go, such as the original instance
                manager, says so only with its first message. Without it, wait as long as it takes.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._call.initial_metadata()
        return self

    def __aiter__(self) -> AsyncIterator[Response]:
        messages: AsyncIterator[Response] = aiter(self._call)
        return messages

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()


class Channel:
    """A connection. Each service is a subclass, and `Client` combines them."""

    def __init__(
        self,
        url: str,
        tls: CertificateSet | None = None,
        *,
        peer_name: str = PEER_NAME,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Connect with the first call.

        Args:
            url: tcp://HOST:PORT or unix://PATH.
            tls: certificates to show and to trust; None for plain text.
            peer_name: the name in the daemon's certificate, whatever its address.
            timeout: seconds that a call may take, unless it is a stream or replaces a process.

        Raises:
            ValueError: if the URL is malformed.
        """
        self.url = url
        self._timeout = timeout
        self._channel = open_channel(address_of(url).target, _OPTIONS, tls, peer_name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the connection; calls in progress are cancelled, after `grace` seconds if given."""
        await self._channel.close(grace)

    async def health(self, service: str = "") -> str:
        """Return SERVING, NOT_SERVING or UNKNOWN for a service, or for the daemon as a whole."""
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await self._unary(f"{_HEALTH}/Check", request, health_pb2.HealthCheckResponse)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def _unary(
        self, method: str, request: Message, kind: type[Response], *, within: float | None = None
    ) -> Response:
        call: Any = self._channel.unary_unary(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        answer: Response = await call(request, timeout=self._timeout if within is None else within)
        return answer

    def _stream(
        self,
        method: str,
        request: Message,
        kind: type[Response],
        metadata: Sequence[tuple[str, str]] = (),
        *,
        wait_for_ready: bool = False,
    ) -> Stream[Response]:
        call: Any = self._channel.unary_stream(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        return Stream(call(request, metadata=tuple(metadata), wait_for_ready=wait_for_ready))

    async def _log(
        self, method: str, request: Message, *, follow: bool, tail: int | None
    ) -> AsyncIterator[str]:
        # The messages have no fields for these two.
        metadata = [(contract.FOLLOW_METADATA, "true")] if follow else []
        if tail is not None:
            metadata.append((contract.TAIL_METADATA, str(tail)))
        lines = self._stream(method, request, LogResponse, metadata)
        try:
            async for answer in lines:
                yield answer.line
        finally:
            lines.cancel()
