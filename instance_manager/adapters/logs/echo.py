"""Repeating log lines on the daemon's stdout, so that `kubectl logs` shows them."""

import os
import select

from instance_manager.adapters.logs.trim import Cut

PIECE = 1 << 18
"""Bytes repeated at a time."""
_BACKLOG = 1 << 22
"""Bytes the echo may lag behind before it skips; the file still has them."""
_PENDING_MOST = 1 << 20


class EchoSink:
    """A non-blocking writer to a descriptor; a reader that is stuck delays the echo, never the daemon."""

    def __init__(self, descriptor: int) -> None:
        # A file description of our own, so that non-blocking does not spread to whoever shares this one.
        path = f"/proc/self/fd/{descriptor}"
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        self._poll: select.poll | None = None
        try:
            self._fd = os.open(path, flags)
        except OSError:  # a socket cannot be opened again, a pipe of another user neither
            self._fd = os.dup(descriptor)
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLOUT)
        self._pending = b""
        self.broken = False
        """Nobody reads any more; nothing is written."""

    @property
    def ready(self) -> bool:
        """Whether more can be taken; otherwise try `flush` later."""
        return len(self._pending) < _PENDING_MOST

    @property
    def idle(self) -> bool:
        """Whether everything taken has been written."""
        return not self._pending

    def write(self, data: bytes) -> None:
        """Take data and write as much as goes out at once."""
        if not self.broken:
            self._pending += data
            self.flush()

    def flush(self) -> None:
        """Write what has been taken, as much as goes out at once."""
        rest = memoryview(self._pending)
        try:
            while rest:
                rest = rest[self._write(rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self.broken = True
            rest = rest[:0]
        self._pending = bytes(rest)

    def _write(self, data: memoryview) -> int:
        if self._poll is None:
            return os.write(self._fd, data)
        # It blocks, but what polls as writable takes this much at once.
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self._fd, data[: select.PIPE_BUF])

    def close(self) -> None:
        """Let go of the descriptor."""
        self.flush()
        os.close(self._fd)


class EchoPosition:
    """How far a log file has been repeated."""

    def __init__(self, name: str, offset: int) -> None:
        self._prefix = b"[%s] " % name.encode()
        self._offset = offset
        self._seen = offset
        self._skipped = 0

    def caught_up(self, size: int, *, last: bool) -> bool:
        """Tell whether all there is has been repeated; an unfinished line may wait for its end."""
        return (self._offset if last else self._seen) >= size

    def take(self, fd: int, size: int, *, last: bool) -> bytes:
        """Return the next lines to repeat, each with the name in front.

        Args:
            fd: of the file.
            size: of the file.
            last: nothing will follow: give out an unfinished line too.
        """
        if size - self._offset > _BACKLOG:
            self._skip_to(size - PIECE)
            self._skip_to(self._offset + os.pread(fd, PIECE, self._offset).find(b"\n") + 1)
        data = os.pread(fd, min(PIECE, size - self._offset), self._offset)
        self._seen = self._offset + len(data)
        end = data.rfind(b"\n") + 1
        if (last and self._seen >= size) or (end == 0 and len(data) == PIECE):
            end = len(data)
        self._offset += end
        lines = data[:end].removesuffix(b"\n").split(b"\n") if end else []
        if self._skipped and lines:
            lines.insert(0, b"... %d bytes not shown here, see the log file" % self._skipped)
            self._skipped = 0
        return b"".join(self._prefix + line + b"\n" for line in lines)

    def give_up(self, size: int) -> None:
        """Skip all there is."""
        self._skip_to(size)

    def trimmed(self, cut: Cut, size: int) -> None:
        """Take note that the head was cut off and what size is left."""
        self._offset -= cut.dropped
        self._seen -= cut.dropped
        if self._offset < cut.first:
            self._skip_to(cut.first)
        self._offset = min(self._offset, size)

    def begin_again(self) -> None:
        """Take note that somebody has truncated the file."""
        self._offset = self._seen = 0

    def _skip_to(self, offset: int) -> None:
        self._skipped += offset - self._offset
        self._offset = offset
        self._seen = max(self._seen, offset)
