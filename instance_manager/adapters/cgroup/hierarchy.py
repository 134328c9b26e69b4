"""Where in the hierarchy of cgroups cells can be made, and whether they can be used there at all."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from instance_manager.adapters.cgroup.folder import open_file, open_folder
from instance_manager.adapters.cgroup.xattrs import set_attribute
from instance_manager.core.mountinfo import unescaped
from instance_manager.platform.commands import SHELL

_NO_PERMISSION = "this user may not write it; run as root, or have it delegated (systemd: Delegate=yes)"
_WHY_NOT = {
    errno.EROFS: "it is mounted read-only; mount it writable, as in a privileged container",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EAGAIN: "it may have no more cgroups; raise cgroup.max.descendants or cgroup.max.depth",
    errno.EOPNOTSUPP: "it has no cgroups of processes there, or no extended attributes; that needs Linux 5.7",
}


class UnusableError(Exception):
    """Cells cannot be used on this machine; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a hierarchy of version 2 is mounted."""

    point: str
    root: str
    """What of the hierarchy is seen there."""


def read_mounts(mountinfo: str) -> Iterator[Mount]:
    """Yield the hierarchies of version 2 in the text of /proc/PID/mountinfo."""
    for line in mountinfo.splitlines():
        fields = line.split()
        if "-" in fields and fields[fields.index("-") + 1] == "cgroup2":
            yield Mount(unescaped(fields[4]), unescaped(fields[3]))


def read_own(cgroup: str) -> str | None:
    """Return where a process is in the hierarchy of version 2, from the text of /proc/PID/cgroup."""
    lines = (line for line in cgroup.splitlines() if line.startswith("0::"))
    return next((line.removeprefix("0::") for line in lines), None)


def locate(mounts: Iterable[Mount], own: str | None) -> Path:
    """Return the directory of the cgroup that a process is in.

    Args:
        mounts: where hierarchies of version 2 are mounted.
        own: where the process is in it; None if there is none.

    Raises:
        UnusableError: if there is none.
    """
    mounts = tuple(mounts)
    if own is None or not mounts:
        raise UnusableError("no cgroups of version 2 are mounted; mount them: mount -t cgroup2 none FOLDER")
    if own.startswith("/.."):
        raise UnusableError(f"this process is in the cgroup {own}, outside of what it can see of cgroups")
    for mount in mounts:
        with suppress(ValueError):
            return Path(mount.point, PurePosixPath(own).relative_to(mount.root))
    raise UnusableError(f"the cgroup {own} of this process lies below none of the mounted ones")


def usable_root(given: Path | None = None) -> Path:
    """Return the directory below which cells are made, once a trial has shown that they can be.

    Args:
        given: the directory; None for the cgroup of this process.

    Raises:
        UnusableError: if they cannot.
    """
    if given is None:
        mountinfo, cgroup = (Path("/proc/self", name).read_text("utf-8") for name in ("mountinfo", "cgroup"))
        given = locate(read_mounts(mountinfo), read_own(cgroup))
    if not (given / "cgroup.procs").exists():
        raise UnusableError(f"{given} is no cgroup of version 2")
    try:
        _try(given)
    except OSError as error:
        why = _WHY_NOT.get(error.errno or 0, "cells need Linux 5.7")
        raise UnusableError(f"no cell can be made in {given}: {error.strerror}: {why}") from error
    return given


def _try(root: Path) -> None:
    """Make a cell and let a process enter it.

    Raises:
        OSError: if that does not work.
    """
    if not os.access(SHELL, os.X_OK):
        raise FileNotFoundError(errno.ENOENT, f"there is no {SHELL}, which enters it")
    trial = root / f"instance-manager-trial-{os.getpid()}"
    trial.mkdir()
    try:
        folder = open_folder(trial)
        try:
            set_attribute(folder, "version", b"1")
            entrance = open_file(folder, "cgroup.procs", os.O_WRONLY)
        finally:
            os.close(folder)
        try:
            words = (SHELL, "-c", "echo 0 >&3")
            quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
            enter = (os.POSIX_SPAWN_DUP2, entrance, 3)
            pid = os.posix_spawn(SHELL, words, os.environ, file_actions=[quiet, enter])
            if os.waitpid(pid, 0)[1] != 0:
                raise PermissionError(errno.EACCES, "no process can enter it")
        finally:
            os.close(entrance)
    finally:
        trial.rmdir()
