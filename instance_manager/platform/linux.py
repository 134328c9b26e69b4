"""What several parts ask of Linux. The guard loads this too, so it imports next to nothing."""

import errno
import fcntl
import os
import time

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_MS_BIND, _MS_REC = 4096, 16384  # mount(2)
_RETRY_DELAY = 0.02


def become_subreaper() -> None:
    """Adopt orphaned descendants from now on.

    Raises:
        OSError: if the kernel does not allow it.
    """
    import ctypes  # noqa: PLC0415 - the first process of a container need not load it, a third of a MiB

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot become a subreaper: {os.strerror(number)}")


def bind_recursively(source: str, target: str) -> None:
    """Make what is mounted at a folder, and below it, appear at another folder too.

    Raises:
        OSError: if there is no such folder, or the kernel does not allow it.
    """
    import ctypes  # noqa: PLC0415 - as above

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def boot_id() -> str:
    """Return the ID of this boot of the machine.

    Raises:
        OSError: if /proc is not mounted.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs a MiB
        return file.read().strip()


def file_identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return device and inode of the file that is at a path now, None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib costs a MiB
    except OSError:
        return None
    return found.st_dev, found.st_ino


def lock_file(path: str | os.PathLike[str], *, patience: float = 0.0) -> int:
    """Create a file if there is none, lock it, and return its descriptor; closing that releases the lock.

    Args:
        path: of the file; one that exists is locked on a read-only file system too.
        patience: seconds to wait for another process to release it.

    Raises:
        BlockingIOError: if another process holds the lock.
        OSError: if the file cannot be created or opened.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise error from None
    return _locked(fd, patience)


def lock_directory(path: str | os.PathLike[str], *, patience: float = 0.0) -> int:
    """Lock a directory itself, and return its descriptor; closing that releases the lock.

    Raises:
        BlockingIOError: if another process holds the lock.
        OSError: if it cannot be opened, or its file system locks no directories.
    """
    return _locked(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), patience)


def _locked(fd: int, patience: float) -> int:
    try:
        _lock_within(fd, patience)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Return whether another process holds the lock of a file or directory, which need not exist.

    Raises:
        OSError: if that cannot be told.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def lock_holder(path: str | os.PathLike[str]) -> int | None:
    """Return the PID of the process that has locked a file; None if none has, or it cannot be told."""
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib costs a MiB
        with open("/proc/locks", encoding="ascii") as file:  # noqa: PTH123 - the same
            locks = [line.split() for line in file]
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for _, kind, _, mode, pid, where, *_ in (lock for lock in locks if "->" not in lock):
        if (kind, mode, where) == ("FLOCK", "WRITE", device) and int(pid) > 0:
            return int(pid)
    return None


def _lock_within(fd: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_DELAY)
        else:
            return
