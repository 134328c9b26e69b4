"""What can be seen of the directory of the processes' logs."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 512
"""Bytes of the unit in which the blocks of a file are counted, stat(2)."""
TRIMS_IN_PLACE = ("ext4", "xfs")
"""File systems on which old lines are cut off without copying the rest."""


@dataclass(frozen=True, slots=True)
class LogDirInspection:
    """The state of the directory and of its file system."""

    writable: bool
    free_bytes: int
    free_files: int | None
    """None if the file system does not count them."""
    file_system: str
    """Its type; empty if unknown."""
    files: int
    """Number of logs."""
    size: int
    """Bytes that they take on the disk."""


@dataclass(frozen=True, slots=True)
class OutputInspection:
    """Where the output of a living process goes."""

    lost: bool
    """Whether to /dev/null."""
    removed: bool
    """Whether to a file that somebody has removed; it takes space as long as the process lives."""


def inspect(path: Path) -> LogDirInspection | None:
    """Look at a directory without changing anything; None if it does not exist."""
    if not path.is_dir():
        return None
    space, sizes = os.statvfs(path), _sizes(path)
    return LogDirInspection(
        writable=os.access(path, os.W_OK),
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        file_system=_file_system(path),
        files=len(sizes),
        size=sum(sizes),
    )


def inspect_output(pid: int) -> OutputInspection | None:
    """Look where the output of a process goes; None if that cannot be seen."""
    try:
        target = os.readlink(f"/proc/{pid}/fd/1")  # noqa: PTH115 - what the kernel says, not a path
        removed = Path(f"/proc/{pid}/fd/1").stat().st_nlink == 0
    except OSError:
        return None
    return OutputInspection(lost=target == os.devnull, removed=removed and target.startswith("/"))


def _sizes(path: Path) -> list[int]:
    found = []
    for log in path.glob("*.log"):
        with suppress(OSError):
            found.append(log.lstat().st_blocks * _BLOCK)
    return found


def _file_system(path: Path) -> str:
    """Return the type of the file system of a path, that of the innermost mount around it."""
    best, kind, where = "", "", str(path.resolve())
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, mount, name, *_ = line.split(" ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind
