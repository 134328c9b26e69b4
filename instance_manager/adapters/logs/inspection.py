"""What can be seen of the directory of the processes' logs."""

import os
from dataclasses import dataclass
from pathlib import Path

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


def inspect(path: Path) -> LogDirInspection | None:
    """Look at a directory without changing anything; None if it does not exist."""
    if not path.is_dir():
        return None
    space = os.statvfs(path)
    return LogDirInspection(
        writable=os.access(path, os.W_OK),
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        file_system=_file_system(path),
    )


def _file_system(path: Path) -> str:
    """Return the type of the file system of a path, that of the innermost mount around it."""
    best, kind, where = "", "", str(path.resolve())
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, mount, name, *_ = line.split(" ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind
