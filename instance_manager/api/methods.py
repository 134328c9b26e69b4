"""Methods of a service: parsing, status codes, and what no handler has foreseen.

Every method of every service goes through here, so that malformed bytes are INVALID_ARGUMENT, an error that a
caller can cause has its own code, and anything else is INTERNAL with an id that is also in the log.
"""

import inspect
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.core import errors

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any], Message | bytes | Awaitable[Message | bytes]]
"""Takes the request, returns the response, as a message or serialized already."""
Stream = Callable[[Any, Context], Awaitable[None]]
"""Takes the request and a context to write serialized messages to."""

STATUS: Mapping[type[errors.InstanceManagerError], grpc.StatusCode] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.UnimplementedError: grpc.StatusCode.UNIMPLEMENTED,
}

_LONGEST_DETAILS = 1000
"""Characters of an error message; longer trailers are refused by clients."""


def status_of(error: errors.InstanceManagerError) -> grpc.StatusCode:
    """Return the status code that tells a caller of an error."""
    if isinstance(error, errors.UpstreamError):
        return grpc.StatusCode[error.code]
    return STATUS[type(error)]


def generic_handler(
    service: ServiceDescriptor, methods: Mapping[str, Unary | Stream]
) -> grpc.GenericRpcHandler:
    """Return the handler of a service.

    Args:
        service: what is served.
        methods: by name.

    Raises:
        ValueError: if `methods` are not exactly the methods of the service.
    """
    if set(methods) != set(service.methods_by_name):
        raise ValueError(f"{service.full_name} has the methods {sorted(service.methods_by_name)}")
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, method in methods.items():
        descriptor = service.methods_by_name[name]
        full_name = f"/{service.full_name}/{name}"
        request = GetMessageClass(descriptor.input_type)
        if descriptor.server_streaming:
            call = _guarded(full_name, _stream(request, method))
            handlers[name] = grpc.unary_stream_rpc_method_handler(call)
        else:
            call = _guarded(full_name, _unary(request, method))
            handlers[name] = grpc.unary_unary_rpc_method_handler(call)
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _parse(kind: type[Message], raw: bytes) -> Message:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise errors.InvalidArgumentError(
            f"cannot read the request as {kind.DESCRIPTOR.full_name}: {error}"
        ) from error


def _unary(kind: type[Message], method: Any) -> Any:
    async def call(raw: bytes, _: Context) -> bytes:
        answer = method(_parse(kind, raw))
        if inspect.isawaitable(answer):
            answer = await answer
        return answer if isinstance(answer, bytes) else answer.SerializeToString()

    return call


def _stream(kind: type[Message], method: Any) -> Any:
    async def call(raw: bytes, context: Context) -> None:
        await method(_parse(kind, raw), context)

    return call


def _guarded(full_name: str, call: Any) -> Any:
    async def guarded(raw: bytes, context: Context) -> bytes | None:
        begun = time.perf_counter()
        # What is left when none of the ways out below was taken: the caller has gone.
        code = grpc.StatusCode.CANCELLED
        try:
            answer: bytes | None = await call(raw, context)
            code = grpc.StatusCode.OK
        except errors.InstanceManagerError as error:
            code = status_of(error)
            await context.abort(code, str(error)[:_LONGEST_DETAILS])
        except grpc.aio.AbortError:
            code = context.code()
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            error_id = uuid.uuid4().hex[:12]
            log.exception("unexpected error in a call", method=full_name, error_id=error_id)
            await context.abort(
                code,
                f"internal error {error_id}: this is a defect; the daemon's log tells more under this id",
            )
        finally:
            milliseconds = round((time.perf_counter() - begun) * 1000, 2)
            log.debug("call", method=full_name, code=code.name, milliseconds=milliseconds)
        return answer

    return guarded
