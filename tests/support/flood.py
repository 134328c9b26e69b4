"""Clients that make calls without pause, as fast as Python writes frames: each that ends is made again."""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import Self

from tests.support.patience import patience

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME = 16_384
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MOST = (1 << 31) - 1
HALF = b"\0\0\0\0\1"
"""The beginning of a message of one byte, which never comes."""
EMPTY = b"\0\0\0\0\0"
"""An empty message."""
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""The frame that follows it."""


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def _literal(name: str, value: str) -> bytes:
    """Return a header as HPACK has it without any table."""
    return b"\0" + b"".join(_string(each.encode()) for each in (name, value))


def _string(content: bytes) -> bytes:
    length = len(content)
    if length < 127:
        return bytes((length,)) + content
    rest, digits = length - 127, b"\x7f"
    while rest >= 128:
        digits += bytes((rest % 128 | 128,))
        rest //= 128
    return digits + bytes((rest,)) + content


class Flood:
    """One connection that keeps so many calls open; what it is sent is read and thrown away."""

    def __init__(
        self, target: str, path: str, content: bytes, *, headers: Iterable[tuple[str, str]] = (), open_: int
    ) -> None:
        """Connect to HOST:PORT.

        Args:
            target: where.
            path: the method.
            content: what is sent of each request; if it is HALF, the request never ends.
            headers: those that each call has in addition.
            open_: number of calls that are open at the same time.
        """
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=patience(20))
        names = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        names += [("content-type", "application/grpc"), ("te", "trailers"), *headers]
        block = b"".join(_literal(*each) for each in names)
        self._blocks = [block[begin : begin + _FRAME] for begin in range(0, len(block), _FRAME)]
        self._content = content
        self._next = 1
        self._open: set[int] = set()
        self._most = open_
        self._unsent = bytearray(PREFACE + SETTINGS)
        self._unsent += _frame(_WINDOW, 0, 0, struct.pack(">I", _MOST - 65_535))
        self._received = bytearray()
        self.made = self.ended = 0
        """Numbers of calls."""
        self.closed = False
        self.socket.setblocking(False)

    def _call(self) -> None:
        stream, last = self._next, len(self._blocks) - 1
        self._next += 2
        for number, block in enumerate(self._blocks):
            kind = _CONTINUATION if number else _HEADERS
            self._unsent += _frame(kind, _END_HEADERS if number == last else 0, stream, block)
        self._unsent += _frame(_DATA, 0 if self._content == HALF else _END_STREAM, stream, self._content)
        self._open.add(stream)
        self.made += 1

    def pump(self) -> None:
        """Read what has come, and send what there is room for."""
        try:
            with contextlib.suppress(BlockingIOError):
                while data := self.socket.recv(1 << 18):
                    self._received += data
                    self._read()
                self.closed = True
            while len(self._open) < self._most and len(self._unsent) < 1 << 18:
                self._call()
            with contextlib.suppress(BlockingIOError):
                del self._unsent[: self.socket.send(self._unsent)]
        except OSError:
            self.closed = True

    def _read(self) -> None:
        begin = 0
        while len(self._received) - begin >= 9:
            length = int.from_bytes(self._received[begin : begin + 3], "big")
            kind, flags = self._received[begin + 3 : begin + 5]
            if len(self._received) - begin < 9 + length:
                break
            stream = int.from_bytes(self._received[begin + 5 : begin + 9], "big") & _MOST
            self._take(kind, flags, stream, bytes(self._received[begin + 9 : begin + 9 + length]))
            begin += 9 + length
        del self._received[:begin]

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind in {_SETTINGS, _PING} and not flags & _ACK:
            self._unsent += _frame(kind, _ACK, 0, content if kind == _PING else b"")
        elif kind == _DATA and content:
            self._unsent += _frame(_WINDOW, 0, 0, struct.pack(">I", len(content)))
        if kind == _RESET or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            if kind != _RESET and self._content == HALF and stream in self._open:
                self._unsent += _frame(_RESET, 0, stream, struct.pack(">I", 8))
            self.ended += stream in self._open
            self._open.discard(stream)
        elif kind == _GOAWAY:
            self.closed = True


class Floods:
    """Several of them, in a thread."""

    def __init__(self, floods: list[Flood]) -> None:
        self._floods = floods
        self._selector = selectors.DefaultSelector()
        for flood in floods:
            self._selector.register(flood.socket, selectors.EVENT_READ, flood)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def made(self) -> int:
        """Number of calls that were made."""
        return sum(flood.made for flood in self._floods)

    @property
    def ended(self) -> int:
        """Number of calls that the server has answered or refused."""
        return sum(flood.ended for flood in self._floods)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._selector.close()
        for flood in self._floods:
            flood.socket.close()

    def _run(self) -> None:
        for flood in self._floods:
            flood.pump()
        while not self._ends.is_set():
            for flood in self._waiting():
                flood.pump()
                if flood.closed:
                    self._selector.unregister(flood.socket)

    def _waiting(self) -> Iterator[Flood]:
        for flood in self._floods:
            if not flood.closed:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if flood._unsent else 0)
                self._selector.modify(flood.socket, events, flood)
        for key, _ in self._selector.select(0.05):
            yield key.data
