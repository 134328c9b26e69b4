"""Small files of /proc and of the records, read without pathlib."""

import os
import signal

_CHUNK = 65536
_PENDING = {"SigPnd", "ShdPnd"}


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


def first_ended() -> os.waitid_result | None:
    """Return a child of this process that has ended, without reaping it."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None


def is_killed(pid: int) -> bool:
    """Return whether a process has been sent SIGKILL, which it cannot receive in uninterruptible sleep.

    Raises:
        OSError: if that cannot be read.
    """
    pending = [line.split()[1] for line in read(f"/proc/{pid}/status").splitlines() if line[:6] in _PENDING]
    return any(int(mask, 16) & 1 << signal.SIGKILL - 1 for mask in pending)


def living_instances() -> int:
    """Return how many children of this process are instances, or cannot be distinguished from one.

    An instance leads a session, from its first instruction to its end. Its environment is not asked: it
    can be overwritten, and reading it hangs as long as the process does.

    Raises:
        OSError: if that cannot be read.
    """
    return sum(_session(pid) == pid for pid in living_children())


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _is_living_child(pid: str) -> bool:
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
    state, parent, threads = fields[0], fields[1], int(fields[17])
    # A zombie may be just the first of several threads.
    return int(parent) == os.getpid() and (state != "Z" or threads > 1)


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
