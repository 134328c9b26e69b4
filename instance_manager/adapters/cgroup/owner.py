"""The directory with the cells of one owner, beside those of others."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from instance_manager.adapters.cgroup.folder import Folder, open_folder

log = structlog.get_logger(__name__)

_UUID = re.compile(r"[0-9A-Za-z_-]{1,100}")
"""Nothing that leads elsewhere, is a file of the kernel's or may be the name of a unit of systemd."""
_OWNER = re.compile(r"[0-9a-f]{16}")


def owner_mark(owner: str) -> str:
    """Return the name of the directory of those cells, from the state directory's mark of processes."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


class Owner:
    """The directory `ROOT/OWNER`, which stays open."""

    def __init__(self, root: Path, owner: str) -> None:
        """Make it, unless it is there.

        Args:
            root: below which it is made.
            owner: the state directory's value of `contract.OWNER_VARIABLE`.

        Raises:
            OSError: if it cannot be made.
        """
        self.path = root / owner_mark(owner)
        self.path.mkdir(exist_ok=True)
        self._fd = open_folder(self.path)
        self.folder = Folder(self._fd, ".")

    def is_there(self) -> bool:
        """Return whether it can be used; one that somebody has removed is made again.

        Raises:
            OSError: if that cannot be told.
        """
        if self.folder.exists():
            return True
        # All cells were gone by then: the kernel does not let it be removed otherwise.
        try:
            self.path.mkdir(exist_ok=True)
            again = open_folder(self.path)
        except OSError as error:
            log.warning("the directory of the cells is gone", folder=str(self.path), reason=error.strerror)
            return False
        os.dup2(again, self._fd, inheritable=False)
        os.close(again)
        log.warning("the directory of the cells was gone, and is made again", folder=str(self.path))
        return self.folder.exists()

    def cell(self, uuid: str) -> Folder:
        """Return the cgroup for an instance.

        Raises:
            OSError: if its UUID cannot be the name of one.
        """
        if not _UUID.fullmatch(uuid):
            raise OSError(errno.EINVAL, "its UUID cannot be the name of a cgroup")
        return Folder(self._fd, uuid)

    def make(self, uuid: str) -> None:
        """Make the cgroup for an instance.

        Raises:
            OSError: if it cannot be made.
        """
        name = self.cell(uuid).name
        try:
            os.mkdir(name, dir_fd=self._fd)
        except FileNotFoundError:
            if not self.is_there():
                raise
            os.mkdir(name, dir_fd=self._fd)

    def close(self) -> None:
        """Let go of it, and remove it if there is no cell in it."""
        os.close(self._fd)
        with suppress(OSError):
            self.path.rmdir()


class ForeignCell(NamedTuple):
    """A cell of another owner: only shown."""

    owner: str
    """Name of the directory."""
    uuid: str
    members: int | None
    """How many processes live in it; None if that cannot be read."""


def cells_of_others(root: Path, owner: str) -> Iterator[ForeignCell]:
    """Yield the cells of other owners; everything in a directory with the form of an owner's counts.

    Args:
        root: below which all of them are.
        owner: as of `Owner`, of those that are left out.

    Raises:
        OSError: if the root cannot be read.
    """
    fd = open_folder(root)
    try:
        for name in Folder(fd, ".").names():
            if name == owner_mark(owner) or not _OWNER.fullmatch(name):
                continue
            for uuid in Folder(fd, name).names():
                try:
                    members = len(list(Folder(fd, f"{name}/{uuid}").members()))
                except OSError:
                    yield ForeignCell(name, uuid, None)
                else:
                    yield ForeignCell(name, uuid, members)
    finally:
        os.close(fd)
