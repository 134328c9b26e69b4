"""The gRPC server: addresses, health, reflection and shutdown."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from instance_manager.api.health import Health
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.listeners import Listener
from instance_manager.api.reflection import SymbolPool
from instance_manager.api.service import MAX_LARGE_REQUEST_BYTES, MAX_REQUEST_BYTES, Service
from instance_manager.api.tls import Certificates, credentials
from instance_manager.core.addresses import Address
from instance_manager.platform.listening import AddressError, AddressInUseError, address_of, reserve

_WINDOW_BYTES = 16 << 10
"""Bytes of a request that a client may send before its call is accepted."""
MAX_CONNECTIONS = 1024
"""Largest number of connections to a port; one more is closed at once."""
HANDSHAKE_TIMEOUT_MS = 5_000
"""Time in which a client must have completed the TLS handshake and the start of HTTP/2."""
MAX_METADATA_BYTES = 4 << 10
"""Bytes of the headers of a call, each with 32 more; a call with longer ones is RESOURCE_EXHAUSTED."""
MAX_CALLS_PER_CONNECTION = 128
"""Largest number of concurrent calls on a connection; its client holds further ones back."""
MAX_CALLS = 2048
"""Largest number of concurrent calls in total; one more is RESOURCE_EXHAUSTED."""
MAX_PENDING_CALLS = 1000
"""Largest number of calls that gRPC holds until they are accepted; one more is CANCELLED."""

_EVERY_HOST = "::"
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_OWNER_ONLY = 0o177
_PROBE_TIMEOUT = 2.0
"""Seconds for a daemon behind a Unix socket to take a connection."""
MAX_IDLE_MS = 30_000
"""Time without a call after which a connection is closed, so that others get in."""
KEEPALIVE_INTERVAL_MS = 30_000
"""Time without anything from a client after which the server pings it."""
KEEPALIVE_TIMEOUT_MS = 20_000
"""Time in which the client answers; then its connection is closed, and its streams end."""
_OPTIONS = (
    # Two daemons must never share a port unknowingly.
    ("grpc.so_reuseport", 0),
    # Clients may ping every 10 s, even between calls; one second is left for jitter.
    ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # By default only two pings are sent on a connection without data.
    ("grpc.http2.max_pings_without_data", 0),
    # Two limits: between them, calls are refused at random.
    ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
    # The same.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
    # Otherwise the window grows with the speed of the connection.
    ("grpc.http2.bdp_probe", 0),
    # It also counts calls that are answered but not yet cleaned up, and so resets well-behaved clients.
    ("grpc.http.overload_protection", 0),
)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line of gRPC's own says more than that a client has disconnected before its answer."""
    return "ExecuteBatchError raised in core" not in record.getMessage()


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)


class GrpcServer:
    """Serves each listener's services, and health and reflection with them."""

    def __init__(
        self,
        listeners: Iterable[Listener],
        interceptors: InterceptorChain,
        certificates: Certificates | None = None,
    ) -> None:
        """Listen nowhere yet; without certificates, plain text is served."""
        self._listeners = tuple(listeners)
        self._services = tuple(dict.fromkeys(each for one in self._listeners for each in one.services))
        for service in self._services:
            interceptors.add(service)
        self._interceptors = interceptors
        self._certificates = certificates
        self._health = Health()
        self._servers: dict[tuple[Service, ...], grpc.aio.Server] = {}
        """By what they serve: listeners with the same services have one, and its limits, in common."""

    def bind(self, address: Address) -> list[Address]:
        """Listen on an address, and return that of each listener; port 0 is replaced by what was chosen.

        A host is listened on at every address it has on this machine. On a Unix socket, all services are
        together; only its owner may use it.

        Raises:
            AddressInUseError: if another program listens on one of them.
            AddressError: if the address is not one of this machine, or cannot be used otherwise.
        """
        if address.path:
            _refuse_taken_path(address.path)
            with _owner_only():
                # Whose clients are no managers, so nothing large comes.
                if not self._listen(self._server(self._services, MAX_REQUEST_BYTES), address):
                    raise AddressError(
                        f"cannot listen on {address.target}: no socket can be made there; let this user "
                        "write to its directory"
                    )
            return [address]
        with ExitStack() as reserved:
            # All of them, before the first one is listened on.
            places = [
                (listener, [address_of(each) for each in reserved.enter_context(reserve(wanted, "--listen"))])
                for listener in self._listeners
                for wanted in [address.shifted(listener.offset)]
            ]
            for listener, addresses in places:
                server = self._server(listener.services, _largest(listener.services))
                self._listen_on_all(server, addresses)
        return [Address(address.host, addresses[0].port) for _, addresses in places]

    def _server(self, services: tuple[Service, ...], most: int) -> grpc.aio.Server:
        """Return the server of these services, which receives at most so many bytes of a request."""
        if services not in self._servers:
            server = grpc.aio.server(
                options=(*_OPTIONS, *_timeouts(), ("grpc.max_receive_message_length", most)),
                interceptors=[self._interceptors.of(services)],
                maximum_concurrent_rpcs=MAX_CALLS,
            )
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            names = (*_names(services), health.SERVICE_NAME, reflection.SERVICE_NAME)
            symbols: Any = SymbolPool()
            reflection.enable_server_reflection(names, server, symbols)
            reflector = reflection.aio.ReflectionServicer(names, symbols)
            server.add_generic_rpc_handlers([_reflection_v1(reflector)])
            self._servers[services] = server
        return self._servers[services]

    def _listen_on_all(self, server: grpc.aio.Server, addresses: list[Address]) -> None:
        """Let gRPC listen one by one on the addresses of a host: it is content with one of several."""
        if any(each.host == _EVERY_HOST for each in addresses):
            # One socket for both families.
            addresses = [each for each in addresses if each.host == _EVERY_HOST]
        for each in addresses:
            if self._listen(server, each) != each.port:
                raise AddressInUseError(
                    f"cannot listen on {each}: it has just been taken by another program; "
                    "end it, or choose another address with --listen"
                )

    def _listen(self, server: grpc.aio.Server, address: Address) -> int:
        """Let gRPC listen on a single address; return the port, 0 if that is impossible."""
        try:
            if self._certificates is None:
                return server.add_insecure_port(address.target)
            return server.add_secure_port(address.target, credentials(self._certificates))
        except RuntimeError:
            return 0

    async def start(self) -> None:
        """Start serving."""
        for name in ("", *_names(self._services)):
            await self.report(name, healthy=True)
        for server in self._servers.values():
            await server.start()

    async def report(self, name: str, *, healthy: bool) -> None:
        """Set the health status of a service, or of a part of the daemon that has its own name."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(name, status.SERVING if healthy else status.NOT_SERVING)

    async def drain(self) -> None:
        """Report NOT_SERVING from now on; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Accept no more calls, give those in progress `grace` seconds to end, then cancel them."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers.values()))


def _names(services: Iterable[Service]) -> list[str]:
    return [service.descriptor.full_name for service in services]


def _largest(services: Iterable[Service]) -> int:
    """Return how many bytes a server of these services receives of a request, whatever its method is."""
    return MAX_LARGE_REQUEST_BYTES if any(each.takes_large for each in services) else MAX_REQUEST_BYTES


def _timeouts() -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", MAX_IDLE_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    )


def _reflection_v1(servicer: Any) -> grpc.GenericRpcHandler:
    """Return reflection under its v1 name too; the messages are the same as those of v1alpha."""
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": method})


@contextmanager
def _owner_only() -> Iterator[None]:
    """Let only the owner use new files, so that a Unix socket has its mode before anybody can connect."""
    before = os.umask(_OWNER_ONLY)
    try:
        yield
    finally:
        os.umask(before)


def _refuse_taken_path(path: str) -> None:
    """Refuse a path at which no socket can be created, or at which another process listens.

    gRPC replaces a dead socket.
    """
    place = Path(path)
    if not place.parent.is_dir():
        reason = f"there is no directory {place.parent}; create it"
    elif os.path.lexists(path) and not place.is_socket():
        reason = "something else than a socket is there; remove it or choose another path with --listen"
    elif who := _listener(path):
        reason = f"{who}; choose another path with --listen"
    else:
        return
    raise AddressError(f"cannot listen on unix:{path}: {reason}")


def _listener(path: str) -> str:
    """Return who listens on a Unix socket, in words; empty if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return ""
        except (TimeoutError, BlockingIOError):
            return "another process listens on it and does not answer"
        except OSError as error:
            return (error.strerror or str(error)).lower()
        return "another process answers on it"
