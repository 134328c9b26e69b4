"""Reading regular files that others may replace or write at the same moment."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

Stamp = tuple[int, ...]
"""Changes whenever the file does."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; what is opened is what was checked, whatever the path leads to later.

    Raises:
        OSError: if it is anything else, or cannot be opened.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return open(fd, "rb")  # noqa: PTH123 - it is open already


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file with this status."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
