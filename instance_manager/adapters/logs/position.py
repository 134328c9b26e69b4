"""How far a log file has been echoed."""

import os

from instance_manager.adapters.logs.page_cache import ATTEMPTS, read_cached
from instance_manager.adapters.logs.trim import Cut

PIECE = 1 << 18
"""Bytes echoed at a time."""
_BACKLOG = 1 << 22
"""Bytes the echo may lag behind before it skips; the file still has them."""


class EchoPosition:
    """The position in a log file of the next line to echo."""

    def __init__(self, name: str, offset: int) -> None:
        self._prefix = b"[%s] " % name.encode()
        self.offset = offset
        self._seen = offset
        """End of what has been read; an incomplete line waits for its end."""
        self._torn = False
        """Whether the position is in the middle of a line."""
        self._skipped = 0
        self._misses = 0

    def caught_up(self, size: int, *, last: bool) -> bool:
        """Return whether everything has been echoed, except for an incomplete line unless `last`."""
        return (self.offset if last else self._seen) >= size

    def next_lines(self, fd: int, size: int, *, last: bool) -> bytes | None:
        """Return the next lines to echo, each after the name; None if the disk must be read first.

        Args:
            fd: descriptor of the file.
            size: size of the file.
            last: whether nothing will follow, so that an incomplete line is returned too.
        """
        if size - self.offset > _BACKLOG:
            self._skip_to(size - PIECE)
            self._torn = True
        wanted = min(PIECE, size - self.offset)
        data = (read_cached if self._misses < ATTEMPTS else os.pread)(fd, wanted, self.offset)
        if data is None or (len(data) < wanted and b"\n" not in data):
            self._misses += 1
            return None
        self._misses = 0
        if self._torn:
            self._torn = False
            rest = data.find(b"\n") + 1
            self._skip_to(self.offset + rest)
            data = data[rest:]
        self._seen = self.offset + len(data)
        end = data.rfind(b"\n") + 1
        if (last and self._seen >= size) or (end == 0 and wanted == PIECE):
            end = len(data)
        self.offset += end
        return self._with_names(data[:end])

    def _with_names(self, data: bytes) -> bytes:
        lines = data.removesuffix(b"\n").split(b"\n") if data else []
        if self._skipped and lines:
            lines.insert(0, b"... %d bytes not shown here, see the log file" % self._skipped)
            self._skipped = 0
        return b"".join(self._prefix + line + b"\n" for line in lines)

    def skip_to_end(self, size: int) -> None:
        """Skip to the end of the file."""
        self._skip_to(size)

    def trimmed(self, cut: Cut, size: int) -> None:
        """Note that the head was cut off, and the remaining size."""
        self.offset -= cut.dropped
        self._seen -= cut.dropped
        if self.offset < cut.first:
            self._skip_to(cut.first)
            self._torn = False
        self.offset = min(self.offset, size)

    def restart(self) -> None:
        """Note that the file was truncated."""
        self.offset = self._seen = 0
        self._torn = False

    def _skip_to(self, offset: int) -> None:
        self._skipped += offset - self.offset
        self.offset = offset
        self._seen = max(self._seen, offset)
