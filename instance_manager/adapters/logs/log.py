"""One log file that is being written: where its readers and its echo are."""

import asyncio
import os
from pathlib import Path

from asyncinotify import Watch

_ECHO_MOST = 1 << 18
"""Bytes echoed at one look."""
_ECHO_BACKLOG = 1 << 22
"""Bytes the echo may lag behind before it skips; the file still has them."""


class LogReader:
    """A position in a log, kept right when the head of the file is cut off."""

    def __init__(self, log: "LogFile | None") -> None:
        self._log = log
        self.offset = 0

    @property
    def ended(self) -> bool:
        """Whether nobody writes any more."""
        return self._log is None or self._log.ended

    @property
    def version(self) -> int:
        """Changes whenever the file has been written."""
        return 0 if self._log is None else self._log.version

    async def ready(self) -> None:
        """Wait while the file is being cut."""
        while self._log is not None and self._log.trimming:
            await self._log.wait()

    async def changed(self, seen: int) -> None:
        """Wait until the file has been written since `seen` or has ended."""
        while not self.ended and self.version == seen:
            assert self._log is not None  # noqa: S101 - or it would have ended
            await self._log.wait()


class LogFile:
    """A log file with a process that writes it."""

    def __init__(self, name: str, path: Path, size: int) -> None:
        self.name = name
        self.path = path
        self.size = size
        """As it was at the last look."""
        self.writers = 0
        self.watch: Watch | None = None
        """Tells that it was written; spent once it has told."""
        self.trimming = False
        self.ended = False
        self.version = 0
        self._echo_offset = size
        self._echo_seen = size
        self._skipped = 0
        self._readers: set[LogReader] = set()
        self._waiting: list[asyncio.Future[None]] = []

    @staticmethod
    def detached_reader() -> LogReader:
        """Return a reader of a file that nobody writes."""
        return LogReader(None)

    def attach(self) -> LogReader:
        """Return a new reader, to be detached in the end."""
        reader = LogReader(self)
        self._readers.add(reader)
        return reader

    def detach(self, reader: LogReader) -> None:
        """Forget a reader."""
        self._readers.discard(reader)

    def notify(self) -> None:
        """Wake the readers: the file has been written."""
        self.version += 1
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def trimmed(self, dropped: int) -> None:
        """Take note that the head was cut off."""
        self.trimming = False
        self.size = max(0, self.size - dropped)
        for reader in self._readers:
            reader.offset = max(0, reader.offset - dropped)
        self._skipped += max(0, dropped - self._echo_offset)
        self._echo_offset = max(0, self._echo_offset - dropped)
        self._echo_seen = max(0, self._echo_seen - dropped)
        self.notify()

    def end(self) -> None:
        """Nobody writes any more: let the readers come to their end."""
        self.ended = True
        self.notify()

    @property
    def echoed(self) -> bool:
        """Whether the echo has seen all there is; an unfinished line waits for its end."""
        return self._echo_seen >= self.size

    def next_echo(self, *, last: bool) -> bytes:
        """Return the next lines to echo, each with the name in front.

        Args:
            last: nothing will follow: give out an unfinished line too.
        """
        behind = self.size - self._echo_offset
        if behind > _ECHO_BACKLOG:
            self._skipped += behind - _ECHO_MOST
            self._echo_offset = self.size - _ECHO_MOST
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), _ECHO_MOST, self._echo_offset)
        self._echo_seen = self._echo_offset + len(data)
        end = data.rfind(b"\n") + 1
        if end == 0 and (last or len(data) == _ECHO_MOST):
            end = len(data)
        self._echo_offset += end
        prefix = b"[%s] " % self.name.encode()
        lines = data[:end].splitlines()
        if self._skipped and lines:
            lines.insert(0, b"... %d bytes not shown here, see the log file" % self._skipped)
            self._skipped = 0
        return b"".join(prefix + line + b"\n" for line in lines)
