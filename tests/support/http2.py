"""An HTTP/2 client that does what no good one does: sends half of a request, or reads no answer."""

import select
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

from tests.support.patience import patience

_FRAME = 16_384


def message(content: bytes) -> bytes:
    """Return a message as gRPC sends it."""
    return b"\0" + struct.pack(">I", len(content)) + content


class Http2Client:
    """A connection; none of its methods waits for long."""

    def __init__(self, target: str) -> None:
        """Connect to HOST:PORT."""
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=patience(20))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._unsent: dict[int, bytes] = {}
        self._whole: set[int] = set()
        """Streams whose request ends with what is sent."""
        self.codes: dict[int, str] = {}
        """By stream: the gRPC status."""
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(
        self, path: str, content: bytes, *, without: int = 0, metadata: Iterable[tuple[str, str]] = ()
    ) -> int:
        """Begin a call whose request lacks its last `without` bytes; return the stream."""
        stream = self._h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        headers += [("content-type", "application/grpc"), ("te", "trailers"), *metadata]
        self._h2.send_headers(stream, headers)
        data = message(content)
        self._unsent[stream] = data[: len(data) - without]
        if not without:
            self._whole.add(stream)
        self._flush()
        return stream

    def send_on(self, within: float, quiet: float = 0.5) -> None:
        """Send what the other side has room for, until it has none for a while or all is sent."""
        deadline = time.monotonic() + within
        moved = time.monotonic()
        while self._unsent and time.monotonic() < min(deadline, moved + quiet):
            for stream in tuple(self._unsent):
                if self._send(stream):
                    moved = time.monotonic()
            if self.receive():
                moved = time.monotonic()

    def receive(self, wait: float = 0.01) -> list[Event]:
        """Take what has come, but never enlarge a window: answers are not read."""
        events: list[Event] = []
        with suppress(ConnectionError, ProtocolError):
            while select.select([self._socket], [], [], wait)[0] and (data := self._socket.recv(1 << 18)):
                events += self._h2.receive_data(data)
                wait = 0
        for event in events:
            if isinstance(event, TrailersReceived | ResponseReceived):  # of a refused call, both are one
                status = dict(event.headers or ()).get(b"grpc-status")
                if status is not None:
                    self.codes[event.stream_id] = status.decode()
            if isinstance(event, StreamReset | StreamEnded):
                self._unsent.pop(event.stream_id, None)
        self._flush()
        return events

    def _send(self, stream: int) -> bool:
        try:
            room = min(self._h2.local_flow_control_window(stream), _FRAME)
            part, rest = self._unsent[stream][:room], self._unsent[stream][room:]
            if not part:
                return False
            self._h2.send_data(stream, part, end_stream=not rest and stream in self._whole)
        except ProtocolError:
            part, rest = b"x", b""
        self._unsent[stream] = rest
        if not rest:
            del self._unsent[stream]
        self._flush()
        return bool(part)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            with suppress(ConnectionError):
                self._socket.sendall(data)
