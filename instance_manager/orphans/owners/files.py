"""Owners from a file, or from all files of a directory."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from instance_manager.orphans.events import OwnersListed
from instance_manager.orphans.interfaces import CannotReadError
from instance_manager.orphans.model import Owner, OwnerKind
from instance_manager.orphans.owners.parse import InvalidOwnersError, parse
from instance_manager.orphans.owners.path_watcher import PathWatcher
from instance_manager.orphans.owners.snapshot import Content, UnreadableFilesError, read
from instance_manager.platform.threads import NoThreadError, Threads

_MERGE, _MERGE_AT_MOST = 0.05, 1.0
"""Changes are merged until there are none for the first number of seconds, or for the second one at most."""
_SETTLE, _SETTLE_AT_MOST = 1.0, 10.0
"""The same for malformed files, which may just be being written."""
_threads = Threads("owners", most=4)
"""What hangs in them does not keep the agent from ending."""


class FileOwners:
    """Implements `interfaces.Owners` with a file, or with all files of a directory.

    Every live read reads the files. They are parsed only when a byte of them has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: Content = {}
        self._owners: Mapping[str, Owner] = {}
        """The owners in `_content`, by name."""

    async def get_live(self, kind: OwnerKind, name: str) -> Owner | None:
        """Read one owner, of any kind; None only if all files are complete and none of them contains it.

        Raises:
            CannotReadError: if a file cannot be read, or is incomplete or malformed.
        """
        del kind  # names are unique across kinds
        return (await self._read()).get(name)

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners.

        Raises:
            CannotReadError: as `get_live`.
        """
        return tuple((await self._read()).values())

    async def watch(self) -> AsyncGenerator[OwnersListed, None]:
        """Yield all owners, now and whenever they have changed.

        Raises:
            CannotReadError: if the files cannot be read or are malformed, and do not change any more.
        """
        try:
            with PathWatcher(self._path) as watcher:
                listed: Mapping[str, Owner] | None = None
                while True:
                    # Before reading, so that no change is missed.
                    watcher.follow()
                    owners = await self._read_settled(watcher)
                    if owners != listed:
                        listed = owners
                        yield OwnersListed(tuple(owners.values()))
                    await watcher.next()
                    await watcher.settle(_MERGE, _MERGE_AT_MOST)
        except OSError as error:
            raise CannotReadError(f"cannot watch {self._path}: {error.strerror or error}") from error

    async def _read_settled(self, watcher: PathWatcher) -> Mapping[str, Owner]:
        """Read the files; malformed ones are read again until they do not change any more."""
        end = time.monotonic() + _SETTLE_AT_MOST
        while True:
            try:
                return await self._read()
            except CannotReadError:
                remaining = end - time.monotonic()
                if remaining <= 0 or not await watcher.settle(_SETTLE, remaining):
                    raise
                watcher.follow()

    async def _read(self) -> Mapping[str, Owner]:
        """Return all owners by name, from the present content of the files."""
        try:
            # In a thread: a file system may be slow, and a large file takes time.
            content = await _threads.run(read, self._path)
            if content != self._content:
                self._owners = await _threads.run(_parse, content)
                self._content = content
        except (UnreadableFilesError, InvalidOwnersError, NoThreadError) as error:
            raise CannotReadError(str(error)) from error
        return self._owners


def _parse(content: Content) -> dict[str, Owner]:
    """Return the owners in all files by name.

    Raises:
        InvalidOwnersError: if a file is malformed, or two objects have the same name.
    """
    owners: dict[str, Owner] = {}
    homes: dict[str, Path] = {}
    for path, text in content.items():
        try:
            found = parse(text)
        except InvalidOwnersError as error:
            raise InvalidOwnersError(f"cannot understand {path}: {error}") from error
        for owner in found:
            if owner.name in owners:
                raise InvalidOwnersError(
                    f"cannot use {owner.name!r}, which is defined twice: in {homes[owner.name]}"
                    f" and {'again' if homes[owner.name] == path else f'in {path}'}"
                )
            owners[owner.name], homes[owner.name] = owner, path
    return owners
