"""A cgroup as a directory, found by its name in another one that is kept open.

So a hierarchy that is unmounted, or mounted over, goes on to work; and a cgroup costs no descriptor.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from instance_manager.adapters.cgroup.events import populated

_NO_LONGER_THERE = {errno.ENOENT, errno.ENODEV}
_NAMESPACES = ("user", "trusted")
"""Of extended attributes. The second one needs CAP_SYS_ADMIN, and the first one Linux 5.7."""
_PIECE = 60_000
"""Bytes; the kernel takes 64 KiB at once, and 128 KiB in all."""


def open_folder(path: str | os.PathLike[str], parent: int | None = None) -> int:
    """Return a descriptor of a directory, whose path may be relative to that of another one.

    Raises:
        OSError: if it cannot be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)


@dataclass(frozen=True, slots=True)
class Folder:
    """A cgroup; every method raises `OSError` if the kernel refuses, ENOENT or ENODEV if there is none."""

    parent: int
    """Descriptor of a directory."""
    name: str
    """Relative to that."""

    def open(self, file: str, flags: int) -> int:
        """Return a descriptor of one of its files."""
        return os.open(f"{self.name}/{file}", flags | os.O_CLOEXEC, dir_fd=self.parent)

    def open_itself(self) -> int:
        """Return a descriptor of its directory."""
        return open_folder(self.name, self.parent)

    def read(self, file: str) -> str:
        """Return the content of one of its files."""
        fd = self.open(file, os.O_RDONLY)
        try:
            content = b""
            while part := os.read(fd, 1 << 16):
                content += part
            return content.decode("ascii")
        finally:
            os.close(fd)

    def write(self, file: str, text: str) -> None:
        """Write to one of its files."""
        fd = self.open(file, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def exists(self) -> bool:
        """Return whether it is there: one that was removed while it is open looks like an empty one."""
        try:
            os.stat(f"{self.name}/cgroup.procs", dir_fd=self.parent)
        except FileNotFoundError:
            return False
        return True

    def made_at(self) -> float:
        """Return when it was made or changed last, in seconds since the epoch."""
        return os.stat(self.name, dir_fd=self.parent).st_ctime

    def names(self) -> list[str]:
        """Return the names of the cgroups in it."""
        fd = self.open_itself()
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        finally:
            os.close(fd)

    def members(self) -> Iterator[int]:
        """Yield the PIDs of its processes, those in cgroups below it last; 0 is one of another PID namespace.

        The kernel leaves out those of which nothing is left but the exit status.
        """
        yield from map(int, self.read("cgroup.procs").split())
        for nested in self._below():
            yield from _processes(nested)

    def is_populated(self) -> bool:
        """Return whether a process is in it or below it."""
        fd = self.open("cgroup.events", os.O_RDONLY)
        try:
            return populated(fd)
        finally:
            os.close(fd)

    def remove(self) -> bool:
        """Remove it, and what is below, if no process is there; return whether it is gone."""
        try:
            if _removed(self):
                return True
            # Of a living one nothing is removed, not even what is empty below it.
            if self.is_populated():
                return False
            return all(map(_removed, reversed([self, *self._below()])))
        except OSError as error:
            if not is_gone(error):
                raise
        return True

    def _below(self) -> Iterator["Folder"]:
        """Yield the cgroups below it, each before those below itself."""
        pending = [self]
        while pending:
            folder = pending.pop()
            with suppress(FileNotFoundError):
                fresh = [Folder(self.parent, f"{folder.name}/{name}") for name in folder.names()]
                pending += fresh
                yield from fresh

    def set_attribute(self, name: str, value: bytes) -> None:
        """Write an extended attribute, ENOSPC if there is no room for it."""
        # The last piece is shorter than the others: a value without it was not written to its end.
        for number in range(len(value) // _PIECE + 1):
            piece = value[number * _PIECE : (number + 1) * _PIECE]
            try:
                os.setxattr(self._path, _attribute(_NAMESPACES[0], name, number), piece)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                os.setxattr(self._path, _attribute(_NAMESPACES[1], name, number), piece)

    def attribute(self, name: str) -> bytes | None:
        """Return an extended attribute; None if there is none, or if it cannot be read."""
        value, number = b"", 0
        while (piece := self._piece(name, number)) is not None:
            value += piece
            if len(piece) < _PIECE:
                return value
            number += 1
        return None

    def _piece(self, name: str, number: int) -> bytes | None:
        for namespace in _NAMESPACES:
            with suppress(OSError):
                return os.getxattr(self._path, _attribute(namespace, name, number))
        return None

    @property
    def _path(self) -> str:
        """A path that leads through the directory that is open."""
        return f"/proc/self/fd/{self.parent}/{self.name}"


def is_gone(error: OSError) -> bool:
    """Return whether an error says that there is no such cgroup, or no such file of it."""
    return error.errno in _NO_LONGER_THERE


def _processes(folder: Folder) -> list[int]:
    try:
        return [int(pid) for pid in folder.read("cgroup.procs").split()]
    except OSError as error:
        # One that counts threads only shows its processes above, where they were seen already.
        if is_gone(error) or error.errno == errno.EOPNOTSUPP:
            return []
        raise


def _removed(folder: Folder) -> bool:
    """Remove a cgroup unless a process or another cgroup is in it; return whether it is gone."""
    try:
        os.rmdir(folder.name, dir_fd=folder.parent)
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.ENOTEMPTY}:
            return False
        if not is_gone(error):
            raise
    return True


def _attribute(namespace: str, name: str, number: int) -> str:
    return f"{namespace}.instance-manager.{name}.{number}"
