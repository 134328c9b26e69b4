"""One long-lived connection to the SPDK service, and its errors in the words of callers."""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.core.errors import UpstreamError
from instance_manager.pb.spdkrpc import spdk_pb2 as pb
from instance_manager.platform.channels import Certificates, open_channel, shown_to

log = structlog.get_logger(__name__)

_RENEWAL_SECONDS = 300.0
"""How long calls in progress may go on with the certificates of before: longer than any but a watch."""
SERVICE = pb.DESCRIPTOR.services_by_name["SPDKService"]

_MAX_ANSWER_BYTES = 16 << 20
"""Much more than a list of all instances of a node has."""
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # Nothing else in this process shares the connection or its backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # While the service is away, calls fail at once. When it is back, it is found again within this time: a
    # refused connection on the same machine costs next to nothing.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # How long to wait for an address that does not answer at all.
    ("grpc.min_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of calls in seconds."""

    read: float = 10.0
    change: float = 180.0
    """Long, because the SPDK service connects to devices and other nodes while it creates an instance."""


class SpdkChannel:
    """The connection: made by the first call, and again after it was lost or certificates were renewed."""

    def __init__(self, target: str, certificates: Certificates | None = None) -> None:
        """Connect to nobody yet; without certificates, plain text is spoken."""
        self.target = target
        self._certificates = certificates
        self._tls = shown_to(target, certificates)
        self._channel = self._opened()
        self._former: dict[grpc.aio.Channel, asyncio.Task[None]] = {}
        """Those with certificates of before, while calls on them are in progress."""

    def _opened(self) -> grpc.aio.Channel:
        peer_name = self._certificates.peer_name if self._certificates else ""
        return open_channel(self.target, _OPTIONS, self._tls, peer_name)

    @property
    def _current(self) -> grpc.aio.Channel:
        """The channel with the certificates that are in use now."""
        tls = shown_to(self.target, self._certificates)
        if tls is not self._tls:
            former, self._tls = self._channel, tls
            self._channel = self._opened()
            closing = asyncio.get_running_loop().create_task(former.close(_RENEWAL_SECONDS))
            self._former[former] = closing
            closing.add_done_callback(lambda _: self._former.pop(former, None))
        return self._channel

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        for task in self._former.values():
            task.cancel()
        for channel in (self._channel, *self._former):
            await channel.close()

    async def ready(self) -> None:
        """Wait until the service is connected."""
        await self._current.channel_ready()

    async def call(self, doing: str, method: str, request: Message, within: float) -> Message:
        """Call a method and return its response.

        Args:
            doing: what is attempted, for the message of an error: "create the replica 'r1'".
            method: of SPDKService.
            request: of the type the method takes.
            within: seconds.

        Raises:
            UpstreamError: with the code of the SPDK service, UNAVAILABLE if it is away,
                DEADLINE_EXCEEDED if it does not answer in time and INTERNAL if the answer cannot be read.
        """
        log.debug("call forwarded", method=method, target=self.target)
        descriptor = SERVICE.methods_by_name[method]
        response = GetMessageClass(descriptor.output_type)
        unary: Any = self._current.unary_unary(
            f"/{SERVICE.full_name}/{method}",
            request_serializer=type(request).SerializeToString,
        )
        try:
            # Read here: gRPC would log a traceback and return nothing for an answer that cannot be read.
            return response.FromString(await unary(request, timeout=within, wait_for_ready=False))
        except grpc.aio.AioRpcError as error:
            raise self._error(doing, error, within) from error
        except DecodeError as error:
            raise UpstreamError(
                "INTERNAL",
                f"cannot {doing}: the SPDK service at {self.target} answers with what is no "
                f"{descriptor.output_type.name}; is it of another version?",
            ) from error

    def stream(self, method: str, request: Message) -> Any:
        """Call a streaming method; the call is a `grpc.aio.UnaryStreamCall`, of bytes."""
        stream: Any = self._current.unary_stream(
            f"/{SERVICE.full_name}/{method}",
            request_serializer=type(request).SerializeToString,
        )
        return stream(request, wait_for_ready=False)

    def _error(self, doing: str, error: grpc.aio.AioRpcError, within: float) -> UpstreamError:
        code, details = error.code(), error.details() or "no reason given"
        service = f"the SPDK service at {self.target}"
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                message = f"{service} is unavailable ({details}); start it, or set --spdk-service-address"
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"{service} did not answer within {within:g} s and may still do it: look first"
            case grpc.StatusCode.UNIMPLEMENTED:
                message = f"{service} does not know how ({details}); is it a newer one that is needed?"
            case _:
                message = f"{service} says: {details}"
        return UpstreamError(code.name, f"cannot {doing}: {message}")
