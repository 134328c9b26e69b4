"""What the stub writes to stdout: its own lines, and the numbered ones of `--log-rate`.

Nothing here waits for a reader: a full pipe must not keep the stub from ending on a signal. Nothing here
fails: what cannot be written to a broken stdout is lost, as it would be with a real instance.
"""

import math
import select
import sys
import time

from instance_manager.platform.writer import NonBlockingWriter
from instance_manager.stub.loop import WRITE, Loop
from instance_manager.stub.options import NUMBER_BYTES

CHUNK = select.PIPE_BUF
"""Bytes of numbered lines at a time: a pipe takes as many whole or not at all."""

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

    def due_lines(self) -> bytes:
        """Return the lines it is time for, as many as a chunk holds but one at least of any length."""
        lines: list[bytes] = []
        while len(lines) < self._per_chunk and self.due() <= 0:
            self._count += 1
            lines.append(b"%0*d%b" % (NUMBER_BYTES, self._count, self._tail))
        return b"".join(lines)


class Output:
    """Stdout: accepts lines at any time, and writes them as it can."""

    def __init__(self, loop: Loop, numbered: NumberedLines, fd: int = 1) -> None:
        self._loop = loop
        self._numbered = numbered
        self._writer = NonBlockingWriter(fd, room=sys.maxsize)
        self._alarm_set = False

    def line(self, text: str) -> None:
        """Write a line, at once if possible."""
        self._writer.write(f"{text}\n".encode(errors="replace"))
        self._wait()

    def flush(self) -> None:
        """Write what can be written now, before the stub ends."""
        self._writer.flush()

    def _advance(self) -> None:
        """Write what is pending, or else numbered lines."""
        self._writer.flush()
        if not self._writer.pending and (lines := self._numbered.due_lines()):
            self._writer.write(lines)
        self._wait()

    def _wait(self) -> None:
        """Arrange to be called when there is more to write."""
        due = self._numbered.due()
        if self._writer.broken and due < math.inf:
            due = max(due, RETRY)
        more = self._writer.pending or due <= 0
        self._loop.watch(self._writer.fd, WRITE if more else 0, self._advance)
        if not more and due < math.inf and not self._alarm_set:
            self._alarm_set = True
            self._loop.after(due, self._alarm)

    def _alarm(self) -> None:
        self._alarm_set = False
        self._advance()
