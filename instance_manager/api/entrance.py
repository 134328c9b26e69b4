"""What every call of every service goes through: its turn, the number of streams, the audit trail."""

import asyncio
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.api.caller import Callers
from instance_manager.api.methods import Context
from instance_manager.api.observing import CallObserver, MethodObserver, Unobserved, code_name, observed
from instance_manager.api.refusals import Refusals
from instance_manager.api.turns import Turns
from instance_manager.app.audit import AuditTrail
from instance_manager.core.errors import ResourceExhaustedError

DEFAULT_MAX_STREAMS = 1000
"""Watches and logs; one that lags holds memory, one that reads a log a descriptor."""

CHANGES = frozenset(
    {
        "ProcessCreate", "ProcessDelete", "ProcessReplace",
        "InstanceCreate", "InstanceDelete", "InstanceReplace", "InstanceSuspend", "InstanceResume",
        "InstanceSwitchOverTarget", "InstanceDeleteTarget", "LogSetLevel", "LogSetFlags",
    }
)  # fmt: skip
"""Methods that change something, of any service: they are audited and go first."""


class Entrance:
    """Stands in front of services."""

    def __init__(
        self,
        trail: AuditTrail,
        calls: CallObserver | None = None,
        *,
        max_streams: int = DEFAULT_MAX_STREAMS,
        no_sockets: Callable[[], Container[int]] = tuple,
    ) -> None:
        """Let calls through and write down what they change.

        Args:
            trail: of what was changed.
            calls: is told about every call; None: nobody is.
            max_streams: that may be open at once.
            no_sockets: returns descriptors of this process that no client is at the other end of.
        """
        self._trail = trail
        self._calls = calls or Unobserved()
        self._callers = Callers(no_sockets)
        self._max_streams = max_streams
        self._turns = Turns()
        self.streams = 0
        """How many are open."""
        self._refusals = Refusals("call refused: limit reached")

    def before(self, services: Mapping[str, grpc.GenericRpcHandler]) -> dict[str, grpc.GenericRpcHandler]:
        """Return handlers that let calls through to these services, by their full names."""
        return {name: _Handler(self, name, handler) for name, handler in services.items()}

    def observer(self, service: str, method: MethodDescriptor) -> MethodObserver:
        """Return what is to be told about the calls of a method."""
        return self._calls.method(service, method.name, streaming=method.server_streaming)

    def wrap(
        self, method: MethodDescriptor, handler: Any, observer: MethodObserver
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the handler of a method behind this entrance."""
        if method.server_streaming:
            stream = self._stream(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(observed(stream, observer))
        change = method.name in CHANGES
        call = self._in_turn(handler.unary_unary, change=change)
        call = self._audited(method, call) if change else call
        return grpc.unary_unary_rpc_method_handler(observed(call, observer))

    def _stream(self, call: Any) -> Any:
        async def stream(raw: bytes, context: Context) -> None:
            try:
                with self._counted():
                    await call(raw, context)
            except ResourceExhaustedError as error:
                await self._refuse(context, error)

        return stream

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self.streams >= self._max_streams:
            raise ResourceExhaustedError(
                f"cannot open another stream: {self.streams} watches and logs are being streamed and "
                f"--max-streams is {self._max_streams}; end some or raise it"
            )
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def _in_turn(self, call: Any, *, change: bool) -> Any:
        async def unary(raw: bytes, context: Context) -> bytes:
            try:
                await self._turns.wait(context.peer(), change=change, size=len(raw))
            except ResourceExhaustedError as error:
                await self._refuse(context, error)
            except asyncio.CancelledError:
                # For the audit trail; the caller hears nothing any more.
                context.set_details("given up before its turn: nothing was done")
                raise
            return cast("bytes", await call(raw, context))

        return unary

    async def _refuse(self, context: Context, error: ResourceExhaustedError) -> None:
        self._refusals.add(lambda: {"reason": str(error)})
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def _audited(self, method: MethodDescriptor, call: Any) -> Any:
        service = method.containing_service
        assert service is not None  # noqa: S101 - every method belongs to one
        full_name = f"{service.full_name}/{method.name}"

        async def audited(raw: bytes, context: Context) -> bytes:
            answer: bytes = b""
            # Now: at the end it may be gone.
            who = self._callers.who(context)
            code: str | None = None
            try:
                answer = await call(raw, context)
            except asyncio.CancelledError:
                # The caller has gone away; what it asked for goes on, see `Replacer`.
                code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                name, uuid = _subject(method, raw, answer)
                self._trail.add(
                    method=full_name,
                    name=name,
                    uuid=uuid,
                    caller=who,
                    code=code or code_name(context.code()),
                    detail=_text(context.details()),
                )
            return answer

        return audited


class _Handler(grpc.GenericRpcHandler):
    """Finds the methods of a service and wraps each once."""

    def __init__(self, entrance: Entrance, name: str, inner: grpc.GenericRpcHandler) -> None:
        self._entrance = entrance
        self._service = descriptor_pool.Default().FindServiceByName(name)
        self._inner = inner
        methods = self._service.methods_by_name
        self._observers = {method: entrance.observer(name, methods[method]) for method in methods}
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the handler of a method, None if the service does not have it."""
        path = handler_call_details.method
        known = self._wrapped.get(path)
        if known is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            name = path.rpartition("/")[2]
            method, observer = self._service.methods_by_name[name], self._observers[name]
            known = self._wrapped[path] = self._entrance.wrap(method, handler, observer)
        return known


def _subject(method: MethodDescriptor, raw: bytes, answer: bytes) -> tuple[str, str]:
    """Return the name and the UUID of what a call was about, empty where they are not known."""
    request, response = _parsed(method.input_type, raw), _parsed(method.output_type, answer)
    name = getattr(request, "name", "") or getattr(getattr(request, "spec", None), "name", "")
    uuid = getattr(getattr(response, "status", None), "uuid", "") or getattr(request, "uuid", "")
    return str(name), str(uuid)


def _parsed(kind: Any, raw: bytes) -> Message | None:
    try:
        return GetMessageClass(kind).FromString(raw)
    except DecodeError:
        return None


def _text(details: Any) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else str(details or "")
