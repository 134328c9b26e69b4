"""Lines of a log file as text."""

from collections.abc import Iterator

CHUNK = 1 << 15
LONGEST = 1 << 17
"""A longer line is split into pieces of this many bytes: each of a thousand readers may keep one."""


class LineSplitter:
    """Turns chunks of bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Add a chunk, and yield the lines it completes, without line ends, one by one."""
        self._rest += chunk
        if b"\n" not in chunk and len(self._rest) <= LONGEST:
            return
        end = self._rest.rfind(b"\n") + 1
        whole = bytes(self._rest[:end])
        *pieces, rest = _pieces(bytes(self._rest[end:]))
        # Before anything is yielded: meanwhile the rest may be dropped.
        self._rest = bytearray(rest)
        begin = 0
        while begin < len(whole):
            end = whole.index(b"\n", begin)
            *before, last = _pieces(whole[begin:end])
            yield from map(text, before)
            yield text(last.removesuffix(b"\r"))
            begin = end + 1
        yield from map(text, pieces)

    def end(self) -> list[str]:
        """Return the last line if it has no line end."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [text(rest)] if rest else []

    def drop(self) -> None:
        """Forget the line that has begun: its end is lost."""
        self._rest.clear()


def text(line: bytes) -> str:
    """Decode a line; what is not UTF-8 becomes U+FFFD."""
    return line.decode("utf-8", errors="replace")


def _pieces(line: bytes) -> list[bytes]:
    """Cut a line that is too long, between characters if it is UTF-8."""
    pieces = []
    while len(line) > LONGEST:
        cut = next((at for at in range(LONGEST, LONGEST - 4, -1) if _begins_character(line[at])), LONGEST)
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


def _begins_character(byte: int) -> bool:
    return byte & 0b1100_0000 != 0b1000_0000  # noqa: PLR2004 - how UTF-8 marks the others
