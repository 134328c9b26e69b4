"""When to read the files again: inotify watches on their directories, for the names that matter."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from asyncinotify import Event, Inotify, Mask

from instance_manager.orphans.owners.snapshot import watch_paths

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


class PathWatcher:
    """Waits for changes of a path, or of what it leads to; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inotify: Inotify
        self._names: dict[int, set[str] | None] = {}
        """The names that matter by watch descriptor of their directory; None for all names."""

    def __enter__(self) -> Self:
        """Start listening.

        Raises:
            OSError: if the machine has no inotify instance left.
        """
        self._inotify = Inotify()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._inotify.close()

    def follow(self) -> None:
        """Watch every directory that matters now; changes from here on are not missed.

        Raises:
            OSError: if one cannot be watched.
        """
        found: dict[int, set[str] | None] = {}
        for directory, names in watch_paths(self._path).items():
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
        """Wait until there are no more changes; return whether there were any.

        Args:
            quiet: seconds without a change to wait for.
            at_most: seconds after which to return even if changes continue.
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
            return True  # the kernel's queue has overflowed
        if event.watch.wd not in self._names:
            return False
        names = self._names[event.watch.wd]
        return names is None or event.name is None or event.name.name in names
