"""One log file that is written or read: its size, and the readers that wait for more."""

import asyncio
import os

from instance_manager.adapters.logs.opening import open_again
from instance_manager.adapters.logs.position import EchoPosition
from instance_manager.adapters.logs.reader import LogReader
from instance_manager.adapters.logs.trim import Cut
from instance_manager.platform.threads import Threads


class LogFile:
    """A log file, kept open: if it is moved or removed by hand, it is still the one being written."""

    def __init__(self, name: str, fd: int, threads: Threads) -> None:
        self.name = name
        self.threads = threads
        """For what may have to wait for the disk."""
        self.fd = fd
        self.size = os.fstat(fd).st_size
        """Size at the last look."""
        self.trimming = False
        self.no_trim_before = 0.0
        """When to try again after cutting has failed, by the clock of the event loop."""
        self.ended = True
        """Whether its last writer has ended."""
        self.version = 0
        """Increases whenever the file has changed."""
        self.echo = EchoPosition(name, self.size)
        self.readers: set[LogReader] = set()
        self._next_change = asyncio.Event()

    def is_same_file(self, fd: int) -> bool:
        """Return whether a descriptor is of the same file."""
        return os.path.sameopenfile(self.fd, fd)

    def open_to_cut(self) -> int:
        """Return a descriptor for cutting the file.

        Raises:
            OSError: if the file cannot be opened for writing.
        """
        return open_again(self.fd, os.O_RDWR)

    def close(self) -> None:
        """Close the file; readers have descriptors of their own."""
        self.end()
        os.close(self.fd)

    def look(self) -> bool:
        """Update the size; return whether it has changed."""
        size = os.fstat(self.fd).st_size
        if size == self.size:
            return False
        if size < self.size:  # truncated by hand
            self.echo.restart()
        self.size = size
        self.notify()
        return True

    def trimmed(self, cut: Cut) -> None:
        """Note that the head was cut off."""
        self.trimming = False
        size = os.fstat(self.fd).st_size
        self.size = min(max(0, self.size - cut.dropped), size)
        for reader in self.readers:
            reader.trimmed(cut, size)
        self.echo.trimmed(cut, self.size)
        self.notify()

    def not_trimmed(self, *, until: float) -> None:
        """Note that the head could not be cut off, and when to try again."""
        self.trimming = False
        self.no_trim_before = until
        self.notify()

    def end(self) -> None:
        """Note that its last writer has ended, so that readers can finish."""
        self.ended = True
        self.notify()

    def notify(self) -> None:
        """Wake all readers that wait for a change."""
        self.version += 1
        self._next_change.set()
        self._next_change = asyncio.Event()

    async def changed(self, seen: int) -> None:
        """Wait until the version is no longer `seen`, or the last writer has ended."""
        while self.version == seen and not self.ended:
            await self._next_change.wait()

    async def wait_trimmed(self) -> None:
        """Wait while the file is being cut."""
        while self.trimming:
            await self._next_change.wait()
