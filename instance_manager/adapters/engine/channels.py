"""Connections to engines and replicas, kept for the next call and closed when they are idle."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio

from instance_manager.platform.background import Background

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
    calls: int = 0
    idle: asyncio.TimerHandle | None = None


class Channels:
    """A channel for each address, as long as it is in use."""

    def __init__(self, background: Background, idle_seconds: float = IDLE_SECONDS) -> None:
        self._background = background
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
        connection = self._connections.get(address)
        if connection is None:
            # With the scheme: a host may have the name of another one. None has that of a Unix socket.
            target = address if address.startswith("unix:") else f"dns:///{address}"
            channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
            connection = _Connection(channel)
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

    def _on_idle(self, address: str, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle = loop.call_later(self._idle_seconds, self._close, address)
        self._idle[address] = None
        if len(self._idle) > MOST_IDLE:
            self._close(next(iter(self._idle)))

    def _close(self, address: str) -> None:
        del self._idle[address]
        connection = self._connections.pop(address)
        if connection.idle:
            connection.idle.cancel()
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
