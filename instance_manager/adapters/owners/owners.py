"""The owners in files, as the agent asks for them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from instance_manager.adapters.owners import files
from instance_manager.adapters.owners.changes import Changes
from instance_manager.adapters.owners.parse import InvalidOwnersError, parse
from instance_manager.app.orphans.interfaces import CannotReadError, OwnerNews, OwnersListed
from instance_manager.core.orphans import Owner

_MERGE, _MERGE_AT_MOST = 0.05, 1.0
"""Seconds without a change, and seconds at most, in which changes count as one."""
_SETTLE, _SETTLE_AT_MOST = 1.0, 10.0
"""The same for files that make no sense: after that they are not merely being written."""


class FileOwners:
    """Implements `app.orphans.interfaces.Owners` with a file, or with all files of a directory.

    Every live read reads the files. They are parsed only when a byte of them has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: files.Content = {}
        self._owners: Mapping[str, Owner] = {}
        """What `_content` says."""

    async def get_live(self, name: str) -> Owner | None:
        """Read one owner; None only if all the files are whole and none of them has it.

        Raises:
            CannotReadError: if a file cannot be read, is not whole or not understood.
        """
        return (await self._read()).get(name)

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners.

        Raises:
            CannotReadError: as `get_live`.
        """
        return tuple((await self._read()).values())

    async def watch(self) -> AsyncGenerator[OwnerNews, None]:
        """Tell all owners, now and whenever they have changed.

        Raises:
            CannotReadError: when the files cannot be read or understood, and do not change any more.
        """
        try:
            with Changes(self._path) as changes:
                told: Mapping[str, Owner] | None = None
                while True:
                    # Before reading: what changes from here on is told.
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
        """Read; what makes no sense is read again until nothing changes any more."""
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
        """Return all owners by name, from what the files hold this moment."""
        try:
            # In a thread: a file system may be slow, and a large file takes its time.
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
        InvalidOwnersError: if a file is not understood or two objects have one name.
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
