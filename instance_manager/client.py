"""A typed, asynchronous client of the instance manager, for the command line, other programs and tests.

    async with Client("tcp://localhost:8500") as client:
        await client.process_create(ProcessSpec(name="r1", binary="/usr/bin/sleep", args=["100"]))
        async for change in client.process_watch():
            print(change.spec.name, change.status.state)

Every call raises `grpc.aio.AioRpcError` with the daemon's status code and message. Where the daemon wants
certificates, `Client(url, tls)` shows them.
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from instance_manager.core.certificates import PEER_NAME, CertificateSet
from instance_manager.pb.imrpc import imrpc_pb2 as pb

DEFAULT_TIMEOUT = 30.0
"""Seconds for a call that does not stream."""
REPLACE_TIMEOUT = 60.0
"""Seconds for a replace, which waits until the new process runs."""

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # An address that does not answer is given up after so long.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    # A new client tries at once, whatever an earlier one to the same address has met.
    ("grpc.use_local_subchannel_pool", 1),
)

Response = TypeVar("Response", bound=Message)


def target_of(url: str) -> str:
    """Return the gRPC target of tcp://HOST:PORT, unix://PATH or HOST:PORT.

    Raises:
        ValueError: if it is none of them.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if path:
            return f"unix:{path}"
    else:
        address = url.removeprefix("tcp://")
        host, _, port = address.rpartition(":")
        if host and port.isdecimal() and "/" not in address:
            return address
    raise ValueError(f"cannot use the URL {url!r}: write tcp://HOST:PORT or unix://PATH")


def _channel(target: str, tls: CertificateSet | None, peer_name: str) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    shown = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    named = (("grpc.ssl_target_name_override", peer_name),)
    return grpc.aio.secure_channel(target, shown, options=(*_OPTIONS, *named))


class Stream(Generic[Response]):
    """A stream of messages from the daemon: iterate over it, cancel it when it is no longer wanted."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def begun(self) -> Self:
        """Wait until the daemon has taken the call; what happens from then on is in the stream."""
        await self._call.initial_metadata()
        return self

    def __aiter__(self) -> AsyncIterator[Response]:
        messages: AsyncIterator[Response] = aiter(self._call)
        return messages

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()


class Client:
    """A connection to one instance manager; use it as an asynchronous context manager."""

    def __init__(self, url: str, tls: CertificateSet | None = None, *, peer_name: str = PEER_NAME) -> None:
        """Connect with the first call.

        Args:
            url: tcp://HOST:PORT or unix://PATH.
            tls: certificates to show and to trust; plain text without.
            peer_name: the name in the daemon's certificate, whatever its address.

        Raises:
            ValueError: if the URL is none.
        """
        self.url = url
        self._channel = _channel(target_of(url), tls, peer_name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    # --- processes ---

    async def process_create(self, spec: pb.ProcessSpec) -> pb.ProcessResponse:
        """Start a process; answered at once, in state `starting` or, if it cannot be executed, `error`."""
        request = pb.ProcessCreateRequest(spec=spec)
        return await self._process("ProcessCreate", request, pb.ProcessResponse)

    async def process_delete(self, name: str, uuid: str = "") -> pb.ProcessResponse:
        """Begin to end a process; with a UUID, only if the process of this name has it."""
        request = pb.ProcessDeleteRequest(name=name, uuid=uuid)
        return await self._process("ProcessDelete", request, pb.ProcessResponse)

    async def process_get(self, name: str) -> pb.ProcessResponse:
        """Return one process."""
        return await self._process("ProcessGet", pb.ProcessGetRequest(name=name), pb.ProcessResponse)

    async def process_list(self) -> dict[str, pb.ProcessResponse]:
        """Return every process by name."""
        answer = await self._process("ProcessList", pb.ProcessListRequest(), pb.ProcessListResponse)
        return dict(answer.processes)

    async def process_replace(
        self, spec: pb.ProcessSpec, terminate_signal: str = "SIGHUP"
    ) -> pb.ProcessResponse:
        """Put a process with another binary in the place of a running one; waits until it runs."""
        request = pb.ProcessReplaceRequest(spec=spec, terminate_signal=terminate_signal)
        return await self._process("ProcessReplace", request, pb.ProcessResponse, within=REPLACE_TIMEOUT)

    def process_watch(self) -> Stream[pb.ProcessResponse]:
        """Stream every change from the moment `Stream.begun` returns."""
        return self._stream("ProcessManagerService/ProcessWatch", empty_pb2.Empty(), pb.ProcessResponse)

    async def process_log(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[str]:
        """Stream the lines of a process's log.

        Args:
            name: of the process, which may be gone already.
            follow: go on until the process is deleted.
            tail: begin with the last `tail` lines.
        """
        metadata = [("instance-manager-follow", "true")] if follow else []
        if tail is not None:
            metadata.append(("instance-manager-tail", str(tail)))
        request = pb.LogRequest(name=name)
        lines = self._stream("ProcessManagerService/ProcessLog", request, pb.LogResponse, metadata)
        try:
            async for answer in lines:
                yield answer.line
        finally:
            lines.cancel()

    # --- the daemon ---

    async def version(self) -> pb.VersionResponse:
        """Return the versions of the daemon and of the interfaces it speaks."""
        return await self._process("VersionGet", empty_pb2.Empty(), pb.VersionResponse)

    async def health(self, service: str = "") -> str:
        """Return SERVING, NOT_SERVING or UNKNOWN for a service, or for the daemon as a whole."""
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await self._unary(f"{_HEALTH}/Check", request, health_pb2.HealthCheckResponse)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    # --- calls ---

    async def _process(
        self, method: str, request: Message, kind: type[Response], *, within: float = DEFAULT_TIMEOUT
    ) -> Response:
        return await self._unary(f"ProcessManagerService/{method}", request, kind, within=within)

    async def _unary(
        self, method: str, request: Message, kind: type[Response], *, within: float = DEFAULT_TIMEOUT
    ) -> Response:
        call: Any = self._channel.unary_unary(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        answer: Response = await call(request, timeout=within)
        return answer

    def _stream(
        self,
        method: str,
        request: Message,
        kind: type[Response],
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Stream[Response]:
        call: Any = self._channel.unary_stream(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        return Stream(call(request, metadata=tuple(metadata)))
