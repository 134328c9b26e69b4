"""Lines of a log file as text."""

import os

CHUNK = 1 << 16
_NEWLINE = ord("\n")
LONGEST = 1 << 20
"""A longer line is delivered in pieces of this many bytes: a gRPC client takes 4 MiB a message by default."""


class LineSplitter:
    """Turns chunks of bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[str]:
        """Take a chunk and return the lines it completes, without line ends."""
        self._rest += chunk
        if b"\n" not in chunk and len(self._rest) < LONGEST:
            return []
        *whole, rest = bytes(self._rest).split(b"\n")
        while len(rest) >= LONGEST:
            whole.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        self._rest = bytearray(rest)
        pieces = (line[i : i + LONGEST] for line in whole for i in range(0, max(len(line), 1), LONGEST))
        return [text(piece) for piece in pieces]

    def end(self) -> list[str]:
        """Return the last line if it has no line end."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [text(rest)] if rest else []


def text(line: bytes) -> str:
    """Decode a line; what is not UTF-8 becomes U+FFFD."""
    return line.removesuffix(b"\r").decode("utf-8", errors="replace")


def tail_offset(fd: int, count: int) -> int:
    """Return where the last `count` lines of a file begin."""
    position = os.fstat(fd).st_size
    if position and os.pread(fd, 1, position - 1) == b"\n":
        position -= 1
    if count <= 0:
        return os.fstat(fd).st_size
    while position > 0:
        begin = max(0, position - CHUNK)
        chunk = os.pread(fd, position - begin, begin)
        for index in range(len(chunk) - 1, -1, -1):
            if chunk[index] == _NEWLINE:
                count -= 1
                if count == 0:
                    return begin + index + 1
        position = begin
    return 0
