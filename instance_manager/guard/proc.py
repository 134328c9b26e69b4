"""Small files of /proc and of the records, read without pathlib."""

import os

_CHUNK = 65536


def start_time(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; works for a zombie too.

    Raises:
        OSError: if there is no such process, or no descriptor is left.
    """
    # The command stands in parentheses and may hold anything; after it comes field 3.
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[19]


def living_instances() -> int:
    """Return how many children of this process are instances, or cannot be distinguished from one.

    An instance leads a session, from its first instruction to its end. Its environment is not asked: it
    can be overwritten, and reading it hangs as long as the process does.

    Raises:
        OSError: if /proc cannot be read.
    """
    return sum(map(_may_be_instance, filter(str.isdecimal, os.listdir("/proc"))))  # noqa: PTH208


def _may_be_instance(pid: str) -> bool:
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
    state, parent, session, threads = fields[0], fields[1], fields[3], int(fields[17])
    # A zombie may be just the first of several threads.
    return int(parent) == os.getpid() and session == pid and (state != "Z" or threads > 1)


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
