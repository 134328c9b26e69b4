"""Small files of /proc and of the records, read without pathlib."""

import os

from instance_manager.platform.contract import UUID_VARIABLE

_CHUNK = 65536
_IDENTITY = f"\0{UUID_VARIABLE}="
"""How the variable begins that the daemon gives to every instance, among all of an environment."""


def start_time(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; works for a zombie too.

    Raises:
        OSError: if there is no such process, or no descriptor is left.
    """
    # The command stands in parentheses and may hold anything; after it comes field 3.
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[19]


def living_instances() -> int:
    """Return how many children of this process are instances, or cannot be distinguished from one.

    Raises:
        OSError: /proc is not what it should be.
    """
    return sum(_is_child(pid) and _may_be_instance(pid) for pid in filter(str.isdecimal, os.listdir("/proc")))  # noqa: PTH208


def _is_child(pid: str) -> bool:
    try:
        state, parent = read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[:2]
    except (OSError, ValueError):  # it has ended meanwhile
        return False
    return int(parent) == os.getpid() and state != "Z"


def _may_be_instance(pid: str) -> bool:
    """Whether a process carries an identity; in the middle of an execve, none shows its environment."""
    try:
        environment = read(f"/proc/{pid}/environ")
    except OSError:  # it belongs to somebody else, or has ended
        return os.path.exists(f"/proc/{pid}")  # noqa: PTH110 - pathlib costs a MiB
    return not environment or _IDENTITY in f"\0{environment}"


def read(path: str, folder: int | None = None) -> str:
    """Return the content of a file; a relative path is relative to the descriptor `folder`.

    Raises:
        OSError: if it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        content = os.read(fd, _CHUNK)
        while more := os.read(fd, _CHUNK):
            content += more
        return content.decode(errors="replace")
    finally:
        os.close(fd)
