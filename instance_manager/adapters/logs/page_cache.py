"""Reading a file without blocking the event loop on the disk.

What was just written is in the page cache, except after a cut, when the file system has to read it again.
"""

import errno
import os
from contextlib import suppress

from instance_manager.platform.threads import Threads

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


async def fetch(threads: Threads, fd: int, size: int, offset: int) -> None:
    """Bring a part of a file into the page cache, in a thread."""
    # An error of the disk is seen by the reader, who also does without a thread if there is none.
    with suppress(OSError):
        await threads.run(os.pread, fd, size, offset)
