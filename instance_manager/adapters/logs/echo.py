"""Repeating log lines on the daemon's stdout, so that `kubectl logs` shows them."""

import os
import select

_PENDING_MOST = 1 << 20


class EchoSink:
    """A non-blocking writer to a descriptor; a stuck reader delays the echo, never the daemon."""

    def __init__(self, descriptor: int) -> None:
        # Open it again, so that O_NONBLOCK does not affect others who share the file description.
        path = f"/proc/self/fd/{descriptor}"
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        self._poll: select.poll | None = None
        try:
            self._fd = os.open(path, flags)
        except OSError:  # a socket, or a pipe of another user, cannot be opened again
            self._fd = os.dup(descriptor)
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLOUT)
        self._pending = b""
        self.broken = False
        """Whether nobody reads any more; then nothing is written."""

    @property
    def ready(self) -> bool:
        """Whether it accepts more; otherwise call `flush` later."""
        return len(self._pending) < _PENDING_MOST

    @property
    def idle(self) -> bool:
        """Whether everything accepted has been written."""
        return not self._pending

    def write(self, data: bytes) -> None:
        """Accept data, and write as much as is possible without blocking."""
        if not self.broken:
            self._pending += data
            self.flush()

    def flush(self) -> None:
        """Write as much pending data as is possible without blocking."""
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
        # It is blocking, but when it polls as writable, it accepts this much without blocking.
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self._fd, data[: select.PIPE_BUF])

    def close(self) -> None:
        """Flush and close the descriptor."""
        self.flush()
        os.close(self._fd)
