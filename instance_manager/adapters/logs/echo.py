"""Repeating log lines on the daemon's stdout, so that `kubectl logs` shows them."""

import os
import select

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
