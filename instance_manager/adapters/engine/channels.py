"""Connections to engines and replicas, kept for the next call and closed when they are idle."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio

from instance_manager.core.errors import UpstreamError
from instance_manager.platform.background import Background

WORK = "engine-connections"
"""Name of the background work that closes connections."""
IDLE_SECONDS = 60.0
"""How long a connection without calls is kept: managers ask every few seconds."""
MOST_IDLE = 512
"""Largest number of connections without calls; of more, the one that is idle for the longest is closed."""
KEEPALIVE_SECONDS = 360.0
"""How long a call may hear nothing before a ping: servers in Go refuse more than one in five minutes."""
_PING_SECONDS = 60.0
"""How long the answer to a ping, or to anything that was sent, may take."""
_MAX_METADATA_BYTES = 64 << 10
"""Bytes of the headers of an answer, among them its error, in which engines tell of each replica."""
_OPTIONS = (
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Nothing else in this process shares a connection or its backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # Every ping counts, also if nothing else is sent for hours.
    ("grpc.http2.max_pings_without_data", 0),
)
_LOST = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""Codes of calls after which a connection is not used again. An engine may have said so itself, which cannot
be told apart; that costs a new connection."""


@dataclass(slots=True, eq=False)
class _Connection:
    channel: grpc.aio.Channel
    calls: int = 0
    idle: asyncio.TimerHandle | None = None


class Channels:
    """A channel for each address, as long as it is in use."""

    def __init__(
        self,
        background: Background,
        idle_seconds: float = IDLE_SECONDS,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        ping_seconds: float = _PING_SECONDS,
    ) -> None:
        self._background = background
        self._idle_seconds = idle_seconds
        self._options = (
            *_OPTIONS,
            ("grpc.keepalive_time_ms", round(keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", round(ping_seconds * 1000)),
            ("grpc.http2.ping_timeout_ms", round(ping_seconds * 1000)),
        )
        self._connections: dict[str, _Connection] = {}
        """By address."""
        self._lost: set[_Connection] = set()
        """Those that are closed with their last call."""
        self._idle: dict[str, None] = {}
        """Addresses of those without calls, in the order in which they became idle."""
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._connections)

    @contextmanager
    def to(self, address: str) -> Iterator[grpc.aio.Channel]:
        """Return the channel to HOST:PORT, which is not closed before the end of the block.

        If the block ends with an `UpstreamError` as of a connection that is lost, or of nobody there, the
        next block gets a new channel: a silent connection stays silent, and a failed one waits.
        """
        connection = self._connections.get(address)
        if connection is None:
            # With the scheme: a host may have the name of another one, such as unix.
            channel = grpc.aio.insecure_channel(f"dns:///{address}", options=self._options)
            connection = _Connection(channel)
            self._connections[address] = connection
        if connection.idle:
            connection.idle.cancel()
            connection.idle = None
            del self._idle[address]
        connection.calls += 1
        try:
            yield connection.channel
        except UpstreamError as error:
            if error.code in _LOST and self._connections.get(address) is connection:
                del self._connections[address]
                self._lost.add(connection)
            raise
        finally:
            connection.calls -= 1
            if not connection.calls and self._connections.get(address) is connection:
                self._on_idle(address, connection)
            elif not connection.calls and connection in self._lost:
                self._lost.discard(connection)
                self._close_in_background(connection)

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
        self._close_in_background(connection)

    def _close_in_background(self, connection: _Connection) -> None:
        task = self._background.start(WORK, connection.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all of them; calls in progress are cancelled."""
        connections = [*self._connections.values(), *self._lost]
        self._connections.clear()
        self._lost.clear()
        self._idle.clear()
        for connection in connections:
            if connection.idle:
                connection.idle.cancel()
            await connection.channel.close()
        await asyncio.gather(*self._closing)
