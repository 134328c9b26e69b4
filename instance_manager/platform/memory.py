"""The memory of this process: what was used for a while, and is free, goes back to the system.

Without that, the C library keeps what a burst of calls has taken, as something small is in use at its end.
"""

import ctypes
import os
from pathlib import Path

from instance_manager.platform.threads import Threads

INTERVAL = 10.0
"""Seconds between two looks."""
_MUCH = 64 << 20
"""Bytes of memory above the first look from which on free memory is looked for."""


def resident_bytes() -> int:
    """Return how many bytes of memory this process has.

    Raises:
        OSError: if /proc cannot be read.
    """
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


_M_ARENA_MAX = -8  # mallopt(3)


def keep_one_heap() -> None:
    """Let all threads allocate from one heap: what one of them has freed serves the next one.

    By default, each thread that finds the heap in use begins one of its own, and gRPC frees a call in another
    thread than the one that has taken it in. Has to come before there are threads; musl does so anyway.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)


class FreeMemory:
    """Gives free memory back."""

    def __init__(self) -> None:
        """Take what the process has now for what it needs at rest."""
        self._at_rest = resident_bytes()
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # there is none with musl
        self._threads = Threads("free-memory", 1)

    async def give_back(self) -> None:
        """Give free memory back if the process has much; that takes some 50 ms, in a thread."""
        if self._trim and resident_bytes() > self._at_rest + _MUCH:
            await self._threads.run(self._trim, 0)

    def close(self) -> None:
        """End the thread."""
        self._threads.close()
