"""Cutting log files that have become too large, in threads: the file system first writes the file out."""

import asyncio
import os
from collections.abc import Callable

import structlog

from instance_manager.adapters.logs.log import LogFile
from instance_manager.adapters.logs.trim import Cut, drop_head
from instance_manager.platform.background import Background
from instance_manager.platform.threads import NoThreadError, Threads

log = structlog.get_logger(__name__)

WORK = "log-trim"
"""Name of this background work."""
_RETRY = 1.0
"""Seconds until the next attempt to cut a file that could not be cut."""


class Trimmer:
    """Keeps log files under their size limit."""

    def __init__(
        self,
        max_size: int,
        *,
        threads: Threads,
        background: Background,
        on_failure: Callable[[LogFile, OSError], None],
        on_end: Callable[[LogFile], None],
    ) -> None:
        """Cut nothing yet; `on_end` is called after each attempt."""
        self._max_size = max_size
        self._threads = threads
        self._background = background
        self._on_failure = on_failure
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self, within: float) -> bool:
        """Wait up to `within` seconds for the cuts in progress; return whether they have ended."""
        if not self._tasks:
            return True
        _, hanging = await asyncio.wait(self._tasks, timeout=within)
        for task in hanging:
            task.cancel()
        return not hanging

    def is_due(self, each: LogFile) -> bool:
        """Return whether to cut a file: a quarter of the limit is left for what is written meanwhile."""
        return each.size > self._max_size * 3 // 4

    def begin(self, each: LogFile) -> bool:
        """Begin to cut a file; return False if that is to be tried later."""
        if each.no_trim_before > asyncio.get_running_loop().time():
            return False
        each.trimming = True
        task = self._background.start(WORK, self._trim(each))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _trim(self, each: LogFile) -> None:
        count, most = each.size - self._max_size // 2, self._max_size * 7 // 8
        try:
            fd = each.open_to_cut()
            try:
                cutting = self._threads.run(_cut, fd, count, most)
            except NoThreadError:
                os.close(fd)
                raise
            cut = await cutting
            each.trimmed(cut)
            log.debug("log trimmed", name=each.name, dropped=cut.dropped, size=each.size)
        except NoThreadError:
            raise  # it is the machine that lacks something, and that is told as such
        except OSError as error:
            self._on_failure(each, error)
        finally:
            if each.trimming:
                each.not_trimmed(until=asyncio.get_running_loop().time() + _RETRY)
            self._on_end(each)


def _cut(fd: int, count: int, most: int) -> Cut:
    """Cut a file and close it: nobody else may close it, as long as this may hang."""
    try:
        return drop_head(fd, count, most)
    finally:
        os.close(fd)
