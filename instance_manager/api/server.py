"""The gRPC server: addresses, health, reflection and shutdown."""

import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.reflection import SymbolPool
from instance_manager.api.service import Service
from instance_manager.api.tls import Certificates, credentials
from instance_manager.core.addresses import Address, parse_address
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import MAX_PORT
from instance_manager.platform.listening import AddressError, AddressInUseError, address_of, reserve
from instance_manager.platform.loopback import is_loopback

INSTANCE_SERVICE_OFFSET = 3
"""Clients expect InstanceService on the port of ProcessManagerService plus this."""

MAX_REQUEST_BYTES = 256 << 10
"""A longer request is RESOURCE_EXHAUSTED. A command line has at most half of it."""
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
MAX_CALLS = 4096
"""Largest number of concurrent calls in total; one more is RESOURCE_EXHAUSTED."""
MAX_PENDING_CALLS = 3000
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
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # From here to 3,000, new ones are refused at random.
    ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
    # Two limits: between them, calls are refused at random.
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


def listen_address(text: str) -> Address:
    """Read the address of ProcessManagerService, whose port leaves room for that of InstanceService.

    Raises:
        InvalidArgumentError: if it is none; the message says what to write.
    """
    address = parse_address(text)
    if address.shifted(INSTANCE_SERVICE_OFFSET).port > MAX_PORT:
        highest = MAX_PORT - INSTANCE_SERVICE_OFFSET
        raise InvalidArgumentError(
            f"cannot use the address {text!r}: InstanceService is on the port "
            f"{INSTANCE_SERVICE_OFFSET} above; write a port up to {highest}"
        )
    return address


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line of gRPC's own says more than that a client has disconnected before its answer."""
    return "ExecuteBatchError raised in core" not in record.getMessage()


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)


class GrpcServer:
    """Serves the given services, health and reflection on every address."""

    def __init__(
        self,
        services: Iterable[Service],
        interceptors: InterceptorChain,
        certificates: Certificates | None = None,
    ) -> None:
        """Listen nowhere yet; without certificates, plain text is served."""
        self._names: list[str] = []
        for service in services:
            interceptors.add(service)
            self._names.append(service.descriptor.full_name)
        self._certificates = certificates
        self._server = grpc.aio.server(
            options=(*_OPTIONS, *_timeouts()), interceptors=[interceptors], maximum_concurrent_rpcs=MAX_CALLS
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        symbols: Any = SymbolPool()
        reflector = reflection.aio.ReflectionServicer(names, symbols)
        reflection.enable_server_reflection(names, self._server, symbols)
        self._server.add_generic_rpc_handlers([_reflection_v1(reflector)])

    def bind(self, address: Address) -> Address:
        """Listen on an address and return it; port 0 is replaced by the port that was chosen.

        A host is listened on at every address it has on this machine. Only the owner may use a Unix socket.

        Raises:
            AddressInUseError: if another program listens on one of them.
            AddressError: if the address is not one of this machine, or cannot be used otherwise.
        """
        if address.path:
            _refuse_taken_path(address.path)
            with _owner_only():
                if not self._listen(address):
                    raise AddressError(
                        f"cannot listen on {address.target}: no socket can be made there; let this user "
                        "write to its directory"
                    )
            return address
        # gRPC is content with one of several addresses, so it gets them one by one.
        with reserve(address, "--listen") as reserved:
            addresses = [address_of(each) for each in reserved]
            if any(each.host == _EVERY_HOST for each in addresses):
                # One socket for both families.
                addresses = [each for each in addresses if each.host == _EVERY_HOST]
            for each in addresses:
                if self._listen(each) != each.port:
                    raise AddressInUseError(
                        f"cannot listen on {address}: {each} has just been taken by another program; "
                        "end it, or choose another address with --listen"
                    )
        return Address(address.host, addresses[0].port)

    def _listen(self, address: Address) -> int:
        """Let gRPC listen on a single address; return the port, 0 if that is impossible."""
        try:
            if self._certificates is None:
                return self._server.add_insecure_port(address.target)
            return self._server.add_secure_port(address.target, credentials(self._certificates))
        except RuntimeError:
            return 0

    async def start(self) -> None:
        """Start serving."""
        for name in ("", *self._names):
            await self.report(name, healthy=True)
        await self._server.start()

    async def report(self, name: str, *, healthy: bool) -> None:
        """Set the health status of a service, or of a part of the daemon that has its own name."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(name, status.SERVING if healthy else status.NOT_SERVING)

    async def drain(self) -> None:
        """Report NOT_SERVING from now on; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Accept no more calls, give those in progress `grace` seconds to end, then cancel them."""
        await self._server.stop(grace)


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


def refuse_exposed(address: Address) -> None:
    """Refuse to serve plain text on an address that other machines can reach.

    Raises:
        AddressError: if the address is neither on loopback nor a Unix socket.
    """
    if not address.path and not is_loopback(address.host):
        raise AddressError(
            f"cannot serve plain text on {address.target}: whoever reaches it could start programs here; "
            "set --tls-dir to a directory with certificates, listen on localhost or a Unix socket, "
            "or allow it with --insecure"
        )


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
