"""Lines of a log file as text."""

CHUNK = 1 << 16
LONGEST = 1 << 20
"""A longer line is split into pieces of this many bytes; gRPC clients accept 4 MiB per message by default."""


class LineSplitter:
    """Turns chunks of bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> list[str]:
        """Add a chunk and return the lines it completes, without line ends."""
        self._rest += chunk
        if b"\n" not in chunk and len(self._rest) <= LONGEST:
            return []
        *whole, rest = bytes(self._rest).split(b"\n")
        lines = []
        for line in whole:
            *pieces, end = _pieces(line)
            lines += [*map(text, pieces), text(end.removesuffix(b"\r"))]
        *pieces, rest = _pieces(rest)
        self._rest = bytearray(rest)
        return [*lines, *map(text, pieces)]

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
