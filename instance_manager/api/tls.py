"""Transport security: credentials that follow renewed certificates, and the gate that every call passes."""

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from instance_manager.api.caller import Context, caller, certificate_names
from instance_manager.api.observing import MethodObserver, Unobserved
from instance_manager.api.refusals import Refusals
from instance_manager.core.certificates import CertificateSet, listed, named

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # has no type parameters when the program runs
Check = Callable[[Context], Awaitable[None]]
Observers = Callable[[str], MethodObserver]
"""Returns what is told about the calls of a method, by its path `/SERVICE/METHOD`."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Mutual TLS of a server."""

    current: Callable[[], CertificateSet]
    """Returns the certificates to use from now on; called by a thread of gRPC for each new connection."""
    peer_name: str
    """The name that a client's certificate has to carry."""
    observers: Observers = lambda _: Unobserved()
    """Of those that are told about the calls that the check of the name refuses."""


def credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials for one port: each port has to notice a renewal itself."""
    used = tls.current()

    def newer() -> Any:  # a configuration, or None where nothing has changed
        nonlocal used
        current = tls.current()
        if current is used:
            return None
        used = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used), newer, require_client_authentication=True
    )


def _configuration(certificates: CertificateSet) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], root_certificates=certificates.ca
    )


class PeerGate(grpc.aio.ServerInterceptor):
    """Lets only calls pass whose client shows a certificate with the peer name.

    It stands before every handler of the server, health and reflection included, whoever added them: a call
    of another client ends before its handler is called.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._peer_name = tls.peer_name
        self._observers = tls.observers
        self._gated: dict[str, tuple[Handler, Handler]] = {}
        self._refusals = Refusals("call refused: wrong name")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Put the check before the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._gated.get(method)
        if known is None or known[0] is not handler:
            known = self._gated[method] = handler, gated(handler, self._check_of(method))
        return known[1]

    def _check_of(self, method: str) -> Check:
        return functools.partial(self._check, observer=self._observers(method))

    async def _check(self, context: Context, observer: MethodObserver) -> None:
        names = certificate_names(context)
        if named(names, self._peer_name):
            return
        self._refusals.add(lambda: {"caller": caller(context), "names": names})
        code = grpc.StatusCode.PERMISSION_DENIED
        observer.begun()
        observer.ended(code.name, 0.0)
        await context.abort(
            code,
            f"cannot serve a client whose certificate names {listed(names)} and not {self._peer_name}; use "
            "one with that name, or start the daemon with another --tls-peer-name",
        )


def gated(handler: Handler, check: Check) -> Handler:
    """Return a handler that is called only after a check has passed."""
    kind = f"{_kind(handler.request_streaming)}_{_kind(handler.response_streaming)}"
    function = getattr(handler, kind)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    made: Handler = make(_checked(function, check), handler.request_deserializer, handler.response_serializer)
    return made


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _checked(function: Any, check: Check) -> Any:
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def generating(request: Any, context: Context) -> AsyncIterator[Any]:
            await check(context)
            async with contextlib.aclosing(function(request, context)) as answers:
                async for answer in answers:
                    yield answer

        return generating

    @functools.wraps(function)
    async def answering(request: Any, context: Context) -> Any:
        await check(context)
        answer = function(request, context)
        # gRPC's own placeholder for a method that a servicer lacks is not asynchronous.
        return await answer if inspect.isawaitable(answer) else answer

    return answering
