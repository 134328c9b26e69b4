"""The owners in files, for the agent."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from instance_manager.orphans.interfaces import CannotReadError, OwnerNews, OwnersListed
from instance_manager.orphans.model import Owner
from instance_manager.orphans.owners import files
from instance_manager.orphans.owners.changes import Changes
from instance_manager.orphans.owners.parse import InvalidOwnersError, parse

_MERGE, _MERGE_AT_MOST = 0.05, 1.0
"""Changes are merged until there are none for the first number of seconds, or for the second one at most."""
_SETTLE, _SETTLE_AT_MOST = 1.0, 10.0
"""The same for malformed files, which may just be being written."""


class FileOwners:
    """Implements `app.orphans.interfaces.Owners` with a file, or with all files of a directory.

    Every live read reads the files. They are parsed only when a byte of them has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: files.Content = {}
        self._owners: Mapping[str, Owner] = {}
        """The owners in `_content`, by name."""

    async def get_live(self, name: str) -> Owner | None:
        """Read one owner; None only if all files are complete and none of them contains it.

        Raises:
            CannotReadError: if a file cannot be read, or is incomplete or malformed.
        """
        return (await self._read()).get(name)

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners.

        Raises:
            CannotReadError: as `get_live`.
        """
        return tuple((await self._read()).values())

    async def watch(self) -> AsyncGenerator[OwnerNews, None]:
        """Yield all owners, now and whenever they have changed.

        Raises:
            CannotReadError: if the files cannot be read or are malformed, and do not change any more.
        """
        try:
            with Changes(self._path) as changes:
                told: Mapping[str, Owner] | None = None
                while True:
                    # Before reading, so that no change is missed.
                    changes.follow()
                    owners = await self._read_settled(changes)
                    if owners != told:
                        told = owners
                        yield OwnersListed(tuple(owners.values()))
                    await changes.next()
                    await changes.settle(_MERGE, _MERGE_AT_MOST)
        except OSError as error:
            raise CannotReadError(f"cannot watch {self._path}: {error.strerror or error}") from error

    async def _read_settled(self, changes: Changes) -> Mapping[str, Owner]:
        """Read the files; malformed ones are read again until they do not change any more."""
        end = time.monotonic() + _SETTLE_AT_MOST
        while True:
            try:
                return await self._read()
            except CannotReadError:
                left = end - time.monotonic()
                if left <= 0 or not await changes.settle(_SETTLE, left):
                    raise
                changes.follow()

    async def _read(self) -> Mapping[str, Owner]:
        """Return all owners by name, from the present content of the files."""
        try:
            # In a thread: a file system may be slow, and a large file takes time.
            content = await asyncio.to_thread(files.read, self._path)
            if content != self._content:
                self._owners = await asyncio.to_thread(_parse, content)
                self._content = content
        except (files.UnreadableFilesError, InvalidOwnersError) as error:
            raise CannotReadError(str(error)) from error
        return self._owners


def _parse(content: files.Content) -> dict[str, Owner]:
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
                    f"cannot tell which {owner.name!r} is meant: it is in {homes[owner.name]}"
                    f" and {'again' if homes[owner.name] == path else f'in {path}'}"
                )
            owners[owner.name], homes[owner.name] = owner, path
    return owners
