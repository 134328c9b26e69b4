"""Connections to engines and replicas, kept for the next call and closed when they are idle."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio

from instance_manager.adapters.engine.sizes import MAX_ANSWER_BYTES, MAX_LARGE_BYTES, service_config
from instance_manager.core.certificates import CertificateSet
from instance_manager.core.errors import UpstreamError
from instance_manager.platform.background import Background
from instance_manager.platform.channels import Certificates, open_channel, shown_to

WORK = "engine-connections"
"""Name of the background work that closes connections."""
IDLE_SECONDS = 60.0
"""How long a connection without calls is kept: managers ask every few seconds."""
MOST_IDLE = 2048
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
    # Before anybody takes an answer, no more of it comes than the first window of its stream.
    ("grpc.http2.bdp_probe", 0),
    # Nothing else in this process shares a connection or its backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # Every ping counts, also if nothing else is sent for hours.
    ("grpc.http2.max_pings_without_data", 0),
)


_Key = tuple[str, bool]
"""An address, and whether large answers are taken from there."""


@dataclass(slots=True, eq=False)
class _Connection:
    channel: grpc.aio.Channel
    tls: CertificateSet | None
    calls: int = 0
    idle: asyncio.TimerHandle | None = None


class Channels:
    """A channel for each address, as long as it is in use; with certificates, none but those in use now."""

    def __init__(
        self,
        background: Background,
        idle_seconds: float = IDLE_SECONDS,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        ping_seconds: float = _PING_SECONDS,
        *,
        certificates: Certificates | None = None,
    ) -> None:
        """Connect to nobody yet; without certificates, plain text is spoken."""
        self._background = background
        self._certificates = certificates
        self._idle_seconds = idle_seconds
        options = (
            *_OPTIONS,
            ("grpc.keepalive_time_ms", round(keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", round(ping_seconds * 1000)),
            ("grpc.http2.ping_timeout_ms", round(ping_seconds * 1000)),
        )
        self._options = {
            large: (
                *options,
                ("grpc.service_config", service_config(MAX_LARGE_BYTES if large else MAX_ANSWER_BYTES)),
            )
            for large in (False, True)
        }
        """Without and with large answers."""
        self._connections: dict[_Key, _Connection] = {}
        self._replaced: set[_Connection] = set()
        """Those that get no more calls, and are closed with their last one."""
        self._idle: dict[_Key, None] = {}
        """Keys of those without calls, in the order in which they became idle."""
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._connections)

    @contextmanager
    def to(self, address: str, *, large: bool = False) -> Iterator[grpc.aio.Channel]:
        """Return the channel to HOST:PORT or unix:PATH, which is not closed before the end of the block.

        With `large` it is one that takes large answers.

        If the block ends with an `UpstreamError` as of a connection that is lost, or of nobody there, the
        next block gets a new channel: a silent connection stays silent, and a failed one waits.
        """
        key = address, large
        connection = self._connection(key)
        if connection.idle:
            connection.idle.cancel()
            connection.idle = None
            del self._idle[key]
        connection.calls += 1
        try:
            yield connection.channel
        except UpstreamError as error:
            # An engine may have said so itself, which cannot be told apart; that costs a new connection.
            if error.is_silence and self._connections.get(key) is connection:
                self._replace(key, connection)
            raise
        finally:
            connection.calls -= 1
            if not connection.calls:
                self._on_idle(key, connection)

    def _connection(self, key: _Key) -> _Connection:
        address, large = key
        tls = shown_to(address, self._certificates)
        connection = self._connections.get(key)
        if connection is not None and connection.tls is not tls:
            self._replace(key, connection)
            connection = None
        if connection is None:
            # With the scheme: a host may have the name of another one. None has that of a Unix socket.
            target = address if address.startswith("unix:") else f"dns:///{address}"
            peer_name = self._certificates.peer_name if self._certificates else ""
            connection = _Connection(open_channel(target, self._options[large], tls, peer_name), tls)
            self._connections[key] = connection
        return connection

    def _replace(self, key: _Key, connection: _Connection) -> None:
        """Make room for another connection to the address; calls in progress end on this one."""
        if connection.calls:
            del self._connections[key]
            self._replaced.add(connection)
        else:
            self._forget(key)

    def _on_idle(self, key: _Key, connection: _Connection) -> None:
        if connection in self._replaced:
            self._replaced.discard(connection)
            self._close(connection)
        elif self._connections.get(key) is connection:  # and not closed with all of them
            loop = asyncio.get_running_loop()
            connection.idle = loop.call_later(self._idle_seconds, self._forget, key)
            self._idle[key] = None
            if len(self._idle) > MOST_IDLE:
                self._forget(next(iter(self._idle)))

    def _forget(self, key: _Key) -> None:
        del self._idle[key]
        connection = self._connections.pop(key)
        if connection.idle:
            connection.idle.cancel()
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        task = self._background.start(WORK, connection.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all of them; calls in progress are cancelled."""
        connections = [*self._connections.values(), *self._replaced]
        self._connections.clear()
        self._replaced.clear()
        self._idle.clear()
        for connection in connections:
            if connection.idle:
                connection.idle.cancel()
            await connection.channel.close()
        await asyncio.gather(*self._closing)
