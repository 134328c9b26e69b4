"""What the stub writes to stdout: its own lines, and the numbered ones of `--log-rate`.

Nothing here waits for a reader: a full pipe must not keep the stub from ending on a signal. Nothing here
fails: what a broken stdout does not take is lost, as it would be with a real instance.
"""

import math
import os
import select
import time

from instance_manager.stub.loop import WRITE, Loop
from instance_manager.stub.options import NUMBER_BYTES

CHUNK = select.PIPE_BUF
"""Bytes per write: a pipe that polls as writable takes as many whole, and without blocking."""

RETRY = 0.1
"""Seconds from a failed write to the next numbered line, so as not to spin."""


class NumberedLines:
    """The lines of `--log-rate`: each starts with its number, from 1, so that a lost or torn one shows."""

    def __init__(self, rate: float, line_bytes: int, limit: int) -> None:
        self._rate = rate
        self._limit = limit or math.inf
        self._tail = b" ".ljust(line_bytes - NUMBER_BYTES, b"x")[: line_bytes - NUMBER_BYTES] + b"\n"
        self._per_chunk = max(1, CHUNK // (line_bytes + 1))
        self._count = 0
        self._start = time.monotonic()

    def due(self) -> float:
        """Seconds until the next line, at most 0 if it is time for it, infinite if there is none to come."""
        if not self._rate or self._count >= self._limit:
            return math.inf
        return self._start + (self._count + 1) / self._rate - time.monotonic()

    def take(self) -> bytes:
        """Return the lines it is time for, as many as a chunk holds but one at least of any length."""
        lines: list[bytes] = []
        while len(lines) < self._per_chunk and self.due() <= 0:
            self._count += 1
            lines.append(b"%0*d%b" % (NUMBER_BYTES, self._count, self._tail))
        return b"".join(lines)


class Output:
    """Stdout: takes lines at any time, and passes them on as it can."""

    def __init__(self, loop: Loop, numbered: NumberedLines, fd: int = 1) -> None:
        self._loop = loop
        self._numbered = numbered
        self._fd = fd
        self._pending = b""
        self._failing = False
        self._alarm_set = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def line(self, text: str) -> None:
        """Write a line, at once if stdout takes it now."""
        self._pending += f"{text}\n".encode(errors="replace")
        self._advance()

    def flush(self) -> None:
        """Write what stdout takes now of what is pending; the end is near."""
        while self._pending and self._writable():
            self._write()

    def _advance(self) -> None:
        """Write one chunk, and arrange to be called when there is more to write."""
        if not self._pending:
            self._pending = self._numbered.take()
        if self._pending and self._writable():
            self._write()
        due = self._numbered.due()
        if self._failing and due < math.inf:
            due = max(due, RETRY)
        more = bool(self._pending) or due <= 0
        self._loop.watch(self._fd, WRITE if more else 0, self._advance)
        if not more and due < math.inf and not self._alarm_set:
            self._alarm_set = True
            self._loop.after(due, self._alarm)

    def _alarm(self) -> None:
        self._alarm_set = False
        self._advance()

    def _writable(self) -> bool:
        return bool(self._poll.poll(0))

    def _write(self) -> None:
        try:
            written = os.write(self._fd, self._pending[:CHUNK])
        except BlockingIOError:
            return
        except OSError:
            self._pending, self._failing = b"", True
        else:
            self._pending, self._failing = self._pending[written:], False
