"""One long-lived connection to the SPDK service, and its errors in the words of callers."""

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.core.errors import UpstreamError
from instance_manager.pb.spdkrpc import spdk_pb2 as pb

log = structlog.get_logger(__name__)

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
    """The connection, which is made by the first call and again after it was lost."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        await self._channel.close()

    async def ready(self) -> None:
        """Wait until the service is connected."""
        await self._channel.channel_ready()

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
        unary: Any = self._channel.unary_unary(
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
        stream: Any = self._channel.unary_stream(
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
