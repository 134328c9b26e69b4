"""What the guard asks of the kernel, in few words and without pathlib."""

import os

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_ENOUGH = 4096
"""Bytes that hold any of the files that are read here, all small ones of /proc."""


def become_subreaper() -> None:
    """Adopt orphaned descendants from now on.

    Raises:
        OSError: The kernel does not allow it.
    """
    import ctypes  # noqa: PLC0415 - the first process of a container spares it, a third of a MiB

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot become a subreaper: {os.strerror(number)}")


def start_time(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; a zombie still tells.

    Raises:
        OSError: There is no such process, or nothing can be opened.
    """
    # The command stands in parentheses and may hold anything; after it comes field 3.
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[19]


def boot_id() -> str:
    """Return what tells this boot of the machine from every other one.

    Raises:
        OSError: /proc is not what it should be.
    """
    return read("/proc/sys/kernel/random/boot_id").strip()


def read(path: str, folder: int | None = None) -> str:
    """Return what a small file holds; `folder` is what a relative path is relative to.

    Raises:
        OSError: It cannot be read.
    """
    fd = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(fd, _ENOUGH).decode(errors="replace")
    finally:
        os.close(fd)
