"""Reading a file without making the event loop wait for the disk.

What was written a moment ago is in memory, except behind a cut: the file system then reads it in again.
"""

import asyncio
import errno
import os
from contextlib import suppress

ATTEMPTS = 3
"""Times to have a part brought into memory before waiting for the disk: the machine lacks memory then."""
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


def read_cached(fd: int, size: int, offset: int) -> bytes | None:
    """Read as much as is in memory, empty at the end of the file; None if the disk has to be asked first."""
    if size <= 0:
        return b""
    buffer = bytearray(size)
    try:
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return os.pread(fd, size, offset)  # a file system that cannot tell, one in memory for instance
    return bytes(memoryview(buffer)[:count])


async def fetch(fd: int, size: int, offset: int) -> None:
    """Have a thread bring a part of a file into memory."""
    with suppress(OSError):  # who reads it will see
        await asyncio.get_running_loop().run_in_executor(None, os.pread, fd, size, offset)
