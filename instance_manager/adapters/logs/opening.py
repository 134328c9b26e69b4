"""Opening log files, and marking them: only regular files, and never through a symbolic link."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_MARK = "user.instance-manager"
"""Extended attribute of each file that is, or was, the log of an instance."""
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe must not make the daemon wait


def open_for_writer(path: Path) -> int:
    """Open a log for a process to append to; create it if it does not exist.

    Raises:
        OSError: if that is impossible.
    """
    fd = _regular(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFELY, 0o644))
    os.set_blocking(fd, True)
    return fd


def open_for_reader(path: Path) -> int:
    """Open a log to read it.

    Raises:
        OSError: if that is impossible.
    """
    return _regular(os.open(path, os.O_RDONLY | _SAFELY))


def open_again(fd: int, flags: int) -> int:
    """Open the file of a descriptor again, even if its path has changed.

    Raises:
        OSError: if that is impossible.
    """
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def mark(fd: int) -> None:
    """Mark a file as the log of an instance, where the file system can."""
    with suppress(OSError):
        os.setxattr(fd, _MARK, b"log")


def is_marked(path: Path) -> bool:
    """Return whether a file is known to be the log of an instance."""
    try:
        return bool(os.getxattr(path, _MARK, follow_symlinks=False))
    except OSError:
        return False


def _regular(fd: int) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd
