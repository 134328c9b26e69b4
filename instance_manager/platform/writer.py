"""Writing to a descriptor without ever waiting for its reader. The guard and the stub load this too."""

import errno
import os
import select
import stat
import time
from collections import deque

_NO_READER = (errno.EPIPE, errno.EBADF)


class NonBlockingWriter:
    """Writes lines without ever blocking or failing.

    Lines for which a reader is too slow wait in memory, up to `room` bytes beside the line in progress. Lines
    that do not fit, or that cannot be written because the reader is gone or the disk is full, are dropped and
    counted.
    """

    def __init__(self, fd: int, room: int) -> None:
        self.fd = _open_nonblocking(fd)
        self.lost = 0
        """Number of lines dropped since the last one that was accepted."""
        self.lost_in_all = 0
        """Number of lines dropped since the start."""
        self.error = 0
        """Error number of the last attempt to write; 0 if it did not fail."""
        self.pending = 0
        """Bytes that wait to be written."""
        self._is_shared = self.fd == fd
        self._room = room
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLOUT)
        self._lines: deque[bytes] = deque()
        """Lines to write; of the first one, perhaps only the rest."""
        self._torn = False
        """Whether the last byte written is in the middle of a line."""

    @property
    def broken(self) -> bool:
        """Whether the last attempt to write failed."""
        return self.error != 0

    @property
    def has_no_reader(self) -> bool:
        """Whether no attempt will succeed any more; any other failure may pass."""
        return self.error in _NO_READER

    def write(self, lines: bytes) -> None:
        """Write one or several whole lines, now or later, or drop them."""
        if self._lines:
            self.flush()
        if self._torn and not self._lines:
            lines = b"\n" + lines
        self._lines.append(lines)
        self.pending += len(lines)
        if not self.flush():
            return
        if self._lines and self.pending > self._room and self._lines[-1] is lines:
            self.pending -= len(lines)
            self._lose(self._lines.pop())
        else:
            self.lost = 0

    def flush(self) -> bool:
        """Write what can be written now; return False if waiting lines had to be dropped."""
        try:
            while self._lines:
                line = self._lines[0]
                written = self._write(line)
                self.error = 0
                self._torn = not line.endswith(b"\n", 0, written)
                self.pending -= written
                if written == len(line):
                    self._lines.popleft()
                else:
                    self._lines[0] = line[written:]
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = error.errno or errno.EIO
            self._lose(*self._lines)
            self._lines.clear()
            self.pending = 0
            return False
        return True

    def drain(self, within: float) -> None:
        """Wait up to `within` seconds until everything is written."""
        deadline = time.monotonic() + within
        while self._lines and (left := deadline - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self.flush()

    def close(self) -> None:
        """Close the descriptor, unless it is the one that was given."""
        if not self._is_shared:
            os.close(self.fd)

    def _lose(self, *dropped: bytes) -> None:
        # A line end at the start belongs to the torn line before.
        count = sum(max(1, lines.count(b"\n", 1)) for lines in dropped)
        self.lost += count
        self.lost_in_all += count

    def _write(self, data: bytes) -> int:
        if not self._is_shared:
            return os.write(self.fd, data)
        # It may be blocking, but when it polls as writable, it takes this much without blocking.
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self.fd, data[: select.PIPE_BUF])


def _open_nonblocking(fd: int) -> int:
    """Return a descriptor for the same pipe, terminal or file that does not block, for this process alone.

    It appends, as a file may be truncated meanwhile or have other writers. Anything else, and what cannot be
    opened again because it belongs to another user or has no reader, is returned as it is: poll it before
    each write.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISREG(mode):
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        pass
    return fd
