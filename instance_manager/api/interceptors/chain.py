"""The interceptors: composes the chain of each method once, when its service is added; gRPC sees only one."""

import hashlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.api.caller import Callers
from instance_manager.api.interceptors.answer_budget import AnswerBudget, AnswerBudgetInterceptor
from instance_manager.api.interceptors.arrivals import (
    MAX_BESIDE_LARGE,
    MAX_LARGE_ARRIVING,
    MAX_LARGE_HELD,
    Arrivals,
)
from instance_manager.api.interceptors.audit import AuditInterceptor
from instance_manager.api.interceptors.call import Call, Handler, Interceptor
from instance_manager.api.interceptors.call_log import CallLog
from instance_manager.api.interceptors.errors import ErrorInterceptor
from instance_manager.api.interceptors.fairness import FairnessInterceptor, FairScheduler
from instance_manager.api.interceptors.foreign import GrpcHandler, guard
from instance_manager.api.interceptors.metrics import CallObserver, MetricsInterceptor
from instance_manager.api.interceptors.peer_name import PeerNameInterceptor
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.interceptors.request_budget import RequestBudget, RequestBudgetInterceptor
from instance_manager.api.interceptors.stream_limit import DEFAULT_MAX_STREAMS, StreamLimit
from instance_manager.api.interceptors.upstream_budget import UpstreamBudget, UpstreamBudgetInterceptor
from instance_manager.api.service import MAX_ENTRIES, Context, Method, Service, most_bytes
from instance_manager.api.size import entries_of, size_of
from instance_manager.app.audit import AuditTrail
from instance_manager.core.errors import InvalidArgumentError, ResourceExhaustedError


class InterceptorChain:
    """What every call passes before its method, or a part of it before health and reflection."""

    def __init__(
        self,
        trail: AuditTrail,
        observer: CallObserver,
        *,
        peer_name: str | None = None,
        max_streams: int = DEFAULT_MAX_STREAMS,
        no_sockets: Callable[[], Container[int]] = tuple,
    ) -> None:
        """Start without services.

        Args:
            trail: the audit trail.
            observer: observes every call.
            peer_name: the name that a client's certificate must carry; None for plain text.
            max_streams: largest number of open streams.
            no_sockets: returns descriptors of this process that are not connections of clients.
        """
        rejections = RejectionLog("call refused: limit reached")
        self._peer_name = None if peer_name is None else PeerNameInterceptor(peer_name)
        self._scheduler = FairScheduler()
        self._arrivals = Arrivals()
        self._large = Arrivals(MAX_LARGE_ARRIVING, MAX_LARGE_HELD)
        self._beside_large = Arrivals(MAX_BESIDE_LARGE)
        self._receiver = _Receiver(self._scheduler)
        self.budget, self.requests, self.upstream = AnswerBudget(), RequestBudget(), UpstreamBudget()
        self.calls = CallLog()
        self._streams = StreamLimit(max_streams, rejections)
        # The outermost first: what one of them rejects, those before it see.
        self._interceptors: list[Interceptor] = [
            MetricsInterceptor(observer),
            AuditInterceptor(trail, Callers(no_sockets)),
            *([self._peer_name] if self._peer_name else []),
            self._receiver,
            ErrorInterceptor(self.calls),
            self._streams,
            RequestBudgetInterceptor(self.requests, rejections),
            UpstreamBudgetInterceptor(self.upstream),
            FairnessInterceptor(self._scheduler, rejections),
            AnswerBudgetInterceptor(self.budget, rejections),
        ]
        self._handlers: dict[str, GrpcHandler] = {}
        """By path, `/SERVICE/METHOD`."""

    def add(self, service: Service) -> None:
        """Serve a service."""
        others = self._beside_large if service.takes_large else self._arrivals
        for method in service.methods():
            self._receiver.arrivals[method.full_name] = self._large if method.large else others
            handler = _invoke(method)
            for interceptor in reversed(self._interceptors):
                handler = interceptor.wrap(method, handler)
            self._handlers[f"/{method.full_name}"] = self._grpc_handler(method, handler)

    def of(self, services: Iterable[Service]) -> grpc.aio.ServerInterceptor:
        """Return the interceptor of a server with these services, which have been added."""
        services = tuple(services)
        large = any(service.takes_large for service in services)
        arrivals = self._beside_large if large else self._arrivals
        paths = {f"/{method.full_name}" for service in services for method in service.methods()}
        return _ServerInterceptor(
            {path: handler for path, handler in self._handlers.items() if path in paths},
            self._scheduler.on_accepted,
            lambda handler: self._guarded(handler, arrivals),
        )

    def _guarded(self, handler: GrpcHandler, arrivals: Arrivals) -> GrpcHandler:
        """Return a handler that comes with gRPC, behind the checks of ours."""
        guarding = self._guard_stream if handler.response_streaming else self._guard_call
        return guard(handler, arrivals.receive, guarding)

    @asynccontextmanager
    async def _guard_call(self, context: Context) -> AsyncIterator[None]:
        """Check a call of a method that comes with gRPC."""
        if self._peer_name:
            await self._peer_name.check(context)
        yield

    @asynccontextmanager
    async def _guard_stream(self, context: Context) -> AsyncIterator[None]:
        """Check a stream of a method that comes with gRPC; it counts like any other."""
        async with self._guard_call(context):
            try:
                with self._streams.opened():
                    yield
            except ResourceExhaustedError as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def _grpc_handler(self, method: Method, handler: Handler) -> GrpcHandler:
        """Return a handler that receives the request itself; to gRPC, it is a stream of requests."""

        async def answer(_: Any, context: Context) -> bytes:
            call = Call(context)
            try:
                await handler(call)
            finally:
                if not call.arrived:
                    self._scheduler.on_arrived()  # the scheduler need not wait for it
                call.forget_request()
            # Of no meaning for a stream, which has written its messages.
            return call.reply

        if method.streaming:
            return grpc.stream_stream_rpc_method_handler(answer)
        return grpc.stream_unary_rpc_method_handler(answer)


class _ServerInterceptor(grpc.aio.ServerInterceptor):
    """Hands each call of one server to the handler of its method."""

    def __init__(
        self,
        handlers: Mapping[str, GrpcHandler],
        on_accepted: Callable[[], None],
        guarded: Callable[[GrpcHandler], GrpcHandler],
    ) -> None:
        self._handlers = handlers
        """By path, `/SERVICE/METHOD`."""
        self._on_accepted = on_accepted
        self._guarded = guarded
        self._foreign: dict[str, GrpcHandler] = {}
        """Those of health and reflection."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[GrpcHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> GrpcHandler | None:
        """Return the handler of a method; None if no service has it."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is not None:
            self._on_accepted()
            return handler
        handler = self._foreign.get(path)
        if handler is None and (found := await continuation(handler_call_details)) is not None:
            handler = self._foreign[path] = self._guarded(found)
        return handler


class _Receiver:
    """Receives the request, and parses it once for all that follow."""

    def __init__(self, scheduler: FairScheduler) -> None:
        self.arrivals: dict[str, Arrivals] = {}
        """Who receives the requests of each method, by its full name."""
        self._scheduler = scheduler

    def wrap(self, method: Method, handler: Handler) -> Handler:
        kind, most = GetMessageClass(method.descriptor.input_type), most_bytes(method)
        arrivals = self.arrivals[method.full_name]

        async def received(call: Call) -> None:
            raw = await arrivals.receive(call.context)
            call.arrived = True
            self._scheduler.on_arrived()
            call.digest = hashlib.sha256(raw).digest()
            # What is wrong is told by `_invoke`, so that it is audited and mapped like any other error.
            if len(raw) > most:
                call.unreadable = ResourceExhaustedError(
                    f"cannot take a request of {len(raw)} bytes: {method.full_name} takes at most {most}"
                )
            else:
                _read(call, kind, raw)
            # The call may take long, and everything of it is in the message.
            del raw
            await handler(call)

        return received


def _read(call: Call, kind: type[Message], raw: bytes) -> None:
    """Read the request of a call."""
    try:
        request = kind.FromString(raw)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        call.unreadable = InvalidArgumentError(f"cannot read the request as {name}: {error}")
        return
    size = size_of(request, len(raw))
    if size > len(raw) and (entries := entries_of(request)) > MAX_ENTRIES:
        call.unreadable = InvalidArgumentError(
            f"cannot take a request with {entries} entries of lists and maps: {MAX_ENTRIES} is the most "
            "there may be; ask for less at once"
        )
        return
    call.request, call.size = request, size


def _invoke(method: Method) -> Handler:
    """Return the innermost handler, which calls the method itself."""
    function: Any = method.function

    async def invoke(call: Call) -> None:
        if call.unreadable is not None:
            raise call.unreadable
        if method.streaming:
            answer = function(call.request, call.context)
        elif method.waits:
            answer = function(call.request, within=call.context.time_remaining())
        else:
            answer = function(call.request)
        call.response = await answer if inspect.isawaitable(answer) else answer
        if isinstance(call.response, Message):
            call.reply = call.response.SerializeToString()
        elif call.response:
            call.reply = call.response

    return invoke
