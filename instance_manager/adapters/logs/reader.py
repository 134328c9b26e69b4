"""Reading a log file while it is being written and its head is being cut off."""

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Protocol

from instance_manager.adapters.logs.lines import CHUNK, LineSplitter
from instance_manager.adapters.logs.page_cache import ATTEMPTS, fetch, read_cached
from instance_manager.adapters.logs.trim import Cut
from instance_manager.platform.threads import Threads


class LogSource(Protocol):
    """What a reader needs to know about a log file."""

    fd: int
    version: int
    ended: bool
    threads: Threads

    async def changed(self, seen: int) -> None:
        """Wait until the version is no longer `seen`, or the last writer has ended."""

    async def wait_trimmed(self) -> None:
        """Wait while the file is being cut."""


class LogReader:
    """A position in a log that stays correct when the head of the file is cut off."""

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self._fd = os.dup(source.fd)
        self._offset = 0
        self._end = 0
        """Where the file ended when reading started."""
        self._splitter = LineSplitter()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    async def lines(self, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines; see `app.interfaces.Logs.read`."""
        await self._source.wait_trimmed()
        self._end = os.fstat(self._fd).st_size
        if tail is not None:
            await self._seek_tail(tail)
        while True:
            seen = self._source.version
            while chunk := await self._next_chunk(follow=follow):
                for line in self._splitter.feed(chunk):
                    yield line
            if not follow or self._source.ended:
                break
            await self._source.changed(seen)
        for line in self._splitter.end():
            yield line

    async def _next_chunk(self, *, follow: bool) -> bytes:
        await asyncio.sleep(0)  # a long log must not block everything else
        chunk = await self._read(self._wanted(follow=follow))
        if not chunk and os.fstat(self._fd).st_size < self._offset:  # truncated by hand
            self._offset = self._end = 0
            self._splitter.drop()
            chunk = await self._read(self._wanted(follow=follow))
        if not follow and self._offset >= self._end:
            chunk = chunk[: chunk.find(b"\n") + 1] or chunk
        self._offset += len(chunk)
        return chunk

    def _wanted(self, *, follow: bool) -> int:
        """Return how many bytes to read next.

        Without `follow`, reading must end even if the log grows faster than it is read: with the line that
        was being written when reading started.
        """
        if follow or (self._offset >= self._end and self._splitter.unfinished):
            return CHUNK
        return max(0, min(CHUNK, self._end - self._offset))

    async def _read(self, size: int, *, whole: bool = False) -> bytes:
        """Read at the position; with `whole`, the full size unless the file ends before."""
        for _ in range(ATTEMPTS):
            await self._source.wait_trimmed()
            data = read_cached(self._fd, size, self._offset)
            if data is not None and (len(data) == size or not whole):
                return data
            await fetch(self._source.threads, self._fd, size, self._offset)
        await self._source.wait_trimmed()
        return os.pread(self._fd, size, self._offset)

    async def _seek_tail(self, count: int) -> None:
        """Go to the start of the last `count` lines, even if the head is cut off in the meantime."""
        self._offset = self._end
        if count <= 0 or not self._end:
            return
        self._offset -= 1  # the end of the last line does not count
        if await self._read(1, whole=True) != b"\n":
            self._offset += 1
        while self._offset > 0:
            size = min(CHUNK, self._offset)
            self._offset -= size
            chunk = await self._read(size, whole=True)
            ends = chunk.count(b"\n")
            if ends >= count:
                self._offset += len(chunk.rsplit(b"\n", count)[0]) + 1
                return
            count -= ends
            await asyncio.sleep(0)

    def trimmed(self, cut: Cut, size: int) -> None:
        """Note that the head was cut off, and the remaining size."""
        self._end = max(0, self._end - cut.dropped)
        self._offset = min(self._offset - cut.dropped, size)
        if self._offset < cut.first or self._offset < 0:
            # The next part to read is gone: continue with the note that says so.
            self._offset = 0
            self._splitter.drop()
