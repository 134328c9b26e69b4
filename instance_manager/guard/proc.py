"""Small files of /proc and of the records, read without pathlib."""

import os

_ENOUGH = 4096
"""Bytes; every file that is read here is smaller."""


def start_time(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; works for a zombie too.

    Raises:
        OSError: if there is no such process, or no descriptor is left.
    """
    # The command stands in parentheses and may hold anything; after it comes field 3.
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[19]


def read(path: str, folder: int | None = None) -> str:
    """Return the content of a small file; a relative path is relative to the descriptor `folder`.

    Raises:
        OSError: if it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(fd, _ENOUGH).decode(errors="replace")
    finally:
        os.close(fd)
