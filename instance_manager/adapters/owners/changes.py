"""When to read the files again: inotify tells, for the names that matter in the directories they are in."""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncinotify import Event, Inotify, Mask

from instance_manager.adapters.owners.files import places

_CHANGES = (
    Mask.MODIFY
    | Mask.CLOSE_WRITE
    | Mask.ATTRIB
    | Mask.CREATE
    | Mask.DELETE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
)


class Changes:
    """Tells when what a path leads to has changed, or the path itself; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inotify: Inotify
        self._names: dict[int, set[str] | None] = {}
        """The names that matter, by number of the watch of their directory; None for all of them."""

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            OSError: if there is no inotify left, there are few on a machine.
        """
        self._inotify = Inotify()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        self._inotify.close()

    def follow(self) -> None:
        """Watch every directory that matters now; what happens from here on is told.

        Raises:
            OSError: if one cannot be watched.
        """
        found: dict[int, set[str] | None] = {}
        for directory, names in places(self._path).items():
            # Two paths may lead to one directory, which then has one watch.
            number = self._inotify.add_watch(directory, _CHANGES).wd
            before = found.get(number, set())
            found[number] = None if names is None or before is None else before | names
        self._names = found

    async def next(self) -> None:
        """Wait for a change."""
        while not self._matters(await self._inotify.get()):
            pass

    async def settle(self, quiet: float, at_most: float) -> bool:
        """Wait until nothing has changed for some time; tell whether anything has.

        Args:
            quiet: seconds without a change.
            at_most: seconds after which it is enough, however much goes on changing.
        """
        some = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                while True:
                    async with asyncio.timeout(quiet):
                        await self.next()
                    some = True
        return some

    def _matters(self, event: Event) -> bool:
        if event.watch is None:
            return True  # so much has happened that the kernel has lost count
        if event.watch.wd not in self._names:
            return False
        names = self._names[event.watch.wd]
        return names is None or event.name is None or event.name.name in names
