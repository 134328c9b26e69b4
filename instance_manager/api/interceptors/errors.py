"""Status codes: each error that a caller can cause has its own; any other is INTERNAL with a logged ID."""

import asyncio
import string
import time
import traceback
import uuid
from collections.abc import Mapping

import grpc
import grpc.aio
import structlog

from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.call_log import CallLog
from instance_manager.api.service import Method
from instance_manager.core import errors

log = structlog.get_logger(__name__)

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

_MAX_DETAILS_BYTES = 6000
"""Longest error message as gRPC writes it; clients accept 8 KiB. Managers look for words anywhere in it."""
MAX_REASON_BYTES = 1000
"""Longest one that is logged and kept."""
_PLAIN = frozenset(f"{string.ascii_letters}{string.digits}{string.punctuation} ") - {"%"}


def _written(byte: int) -> int:
    """Return how many bytes gRPC writes for one of an error message."""
    return 1 if chr(byte) in _PLAIN else 3


def status_of(error: errors.InstanceManagerError) -> grpc.StatusCode:
    """Return the status code for an error."""
    if isinstance(error, errors.UpstreamError):
        return grpc.StatusCode[error.code]
    return STATUS[type(error)]


class ErrorInterceptor:
    """Ends a call that raises an error with the status code for it, and has each call logged."""

    def __init__(self, calls: CallLog) -> None:
        self._calls = calls

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Map the errors of a method."""
        path = f"/{method.full_name}"

        async def mapped(call: Call) -> None:
            started = time.perf_counter()
            # If none of the branches below is taken, the caller has disconnected.
            code, reason = grpc.StatusCode.CANCELLED, ""
            try:
                await handler(call)
                code = grpc.StatusCode.OK
            except errors.InstanceManagerError as error:
                code, reason = status_of(error), errors.shorten(str(error), MAX_REASON_BYTES)
                details = errors.shorten(str(error), _MAX_DETAILS_BYTES, _written)
                # gRPC ties errors to their calls; the request would be kept until the next collection.
                traceback.clear_frames(error.__traceback__)
                await call.context.abort(code, details)
            except grpc.aio.InternalError as error:
                # A message could not be sent: the caller has disconnected.
                raise asyncio.CancelledError from error
            except grpc.aio.AbortError:
                code = call.context.code()
                raise
            except Exception:
                code = grpc.StatusCode.INTERNAL
                error_id = uuid.uuid4().hex[:12]
                log.exception("unexpected error in a call", method=path, error_id=error_id)
                await call.context.abort(
                    code,
                    f"internal error {error_id}: this is a defect; the daemon's log has more under this id",
                )
            finally:
                self._calls.add(method, call.digest, code, reason, time.perf_counter() - started)

        return mapped
