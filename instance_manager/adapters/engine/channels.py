"""Connections to engines and replicas, kept for the next call and closed when they are idle."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio

from instance_manager.core.certificates import CertificateSet
from instance_manager.platform.background import Background
from instance_manager.platform.channels import Certificates, open_channel, shown_to

WORK = "engine-connections"
"""Name of the background work that closes connections."""
IDLE_SECONDS = 60.0
"""How long a connection without calls is kept: managers ask every few seconds."""
MOST_IDLE = 512
"""Largest number of connections without calls; of more, the one that is idle for the longest is closed."""
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Nothing else in this process shares a connection or its backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # While an engine is away, calls fail at once; when it is back, it is found again within this time.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass(slots=True)
class _Connection:
    channel: grpc.aio.Channel
    tls: CertificateSet | None
    calls: int = 0
    renewed: bool = False
    """Whether another one, with newer certificates, has taken its place."""
    idle: asyncio.TimerHandle | None = None


class Channels:
    """A channel for each address, as long as it is in use; with certificates, none but those in use now."""

    def __init__(
        self,
        background: Background,
        idle_seconds: float = IDLE_SECONDS,
        certificates: Certificates | None = None,
    ) -> None:
        """Connect to nobody yet; without certificates, plain text is spoken."""
        self._background = background
        self._certificates = certificates
        self._idle_seconds = idle_seconds
        self._connections: dict[str, _Connection] = {}
        """By address."""
        self._idle: dict[str, None] = {}
        """Addresses of those without calls, in the order in which they became idle."""
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._connections)

    @contextmanager
    def to(self, address: str) -> Iterator[grpc.aio.Channel]:
        """Return the channel to HOST:PORT or unix:PATH, which is not closed before the end of the block."""
        tls = shown_to(address, self._certificates)
        connection = self._connections.get(address)
        if connection is not None and connection.tls is not tls:
            self._renew(address, connection)
            connection = None
        if connection is None:
            # With the scheme: a host may have the name of another one. None has that of a Unix socket.
            target = address if address.startswith("unix:") else f"dns:///{address}"
            peer_name = self._certificates.peer_name if self._certificates else ""
            connection = _Connection(open_channel(target, _OPTIONS, tls, peer_name), tls)
            self._connections[address] = connection
        if connection.idle:
            connection.idle.cancel()
            connection.idle = None
            del self._idle[address]
        connection.calls += 1
        try:
            yield connection.channel
        finally:
            connection.calls -= 1
            if not connection.calls and self._connections.get(address) is connection:
                self._on_idle(address, connection)
            elif not connection.calls and connection.renewed:
                self._close(connection)

    def _on_idle(self, address: str, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle = loop.call_later(self._idle_seconds, self._forget, address)
        self._idle[address] = None
        if len(self._idle) > MOST_IDLE:
            self._forget(next(iter(self._idle)))

    def _renew(self, address: str, connection: _Connection) -> None:
        """Make room for a connection with newer certificates; calls in progress end on the old one."""
        if connection.calls:
            connection.renewed = True
            del self._connections[address]
        else:
            self._forget(address)

    def _forget(self, address: str) -> None:
        del self._idle[address]
        connection = self._connections.pop(address)
        if connection.idle:
            connection.idle.cancel()
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        task = self._background.start(WORK, connection.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all of them; calls in progress are cancelled."""
        connections, self._connections = self._connections, {}
        self._idle.clear()
        for connection in connections.values():
            if connection.idle:
                connection.idle.cancel()
            await connection.channel.close()
        await asyncio.gather(*self._closing)
