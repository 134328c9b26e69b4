"""Reading a file without blocking the event loop on the disk.

What was just written is in the page cache, except after a cut, when the file system has to read it again.
"""

import asyncio
import errno
import os
from contextlib import suppress

ATTEMPTS = 3
"""How often to fetch a part into the page cache before reading it blockingly: memory must be short then."""
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


def read_cached(fd: int, size: int, offset: int) -> bytes | None:
    """Read as much as is in the page cache; empty at the end of the file, None if the disk must be read."""
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
        return os.pread(fd, size, offset)  # a file system without RWF_NOWAIT, such as tmpfs
    return bytes(memoryview(buffer)[:count])


async def fetch(fd: int, size: int, offset: int) -> None:
    """Bring a part of a file into the page cache, in a thread."""
    with suppress(OSError):  # the reader will see it
        await asyncio.get_running_loop().run_in_executor(None, os.pread, fd, size, offset)
