"""Small files of /proc and of the records, read without pathlib."""

import os
import signal

from instance_manager.platform.contract import UUID_VARIABLE

_CHUNK = 65536
_PENDING = {"SigPnd", "ShdPnd"}
_IDENTITY = f"\0{UUID_VARIABLE}="
"""How the variable begins that the daemon gives to every instance, among all of an environment."""


def start_time(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; works for a zombie too.

    Raises:
        OSError: if there is no such process, or no descriptor is left.
    """
    # The command stands in parentheses and may hold anything; after it comes field 3.
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[19]


def living_children() -> list[int]:
    """Return the PIDs of the children of this process that have not ended.

    Raises:
        OSError: if that cannot be read.
    """
    return [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _is_living_child(pid)]  # noqa: PTH208


def is_killed(pid: int) -> bool:
    """Return whether a process has been sent SIGKILL, which it cannot receive in uninterruptible sleep.

    Raises:
        OSError: if that cannot be read.
    """
    pending = [line.split()[1] for line in read(f"/proc/{pid}/status").splitlines() if line[:6] in _PENDING]
    return any(int(mask, 16) & 1 << signal.SIGKILL - 1 for mask in pending)


def living_instances() -> int:
    """Return how many children of this process are instances, or cannot be distinguished from one.

    Raises:
        OSError: if that cannot be read.
    """
    return sum(map(_may_be_instance, living_children()))


def _is_living_child(pid: str) -> bool:
    try:
        state, parent = read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(parent) == os.getpid() and state != "Z"


def _may_be_instance(pid: int) -> bool:
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
