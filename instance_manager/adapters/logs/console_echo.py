"""Echoing all log files on the daemon's stdout, so that `kubectl logs` shows them."""

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Iterable

from instance_manager.adapters.logs.log import LogFile
from instance_manager.adapters.logs.page_cache import fetch
from instance_manager.adapters.logs.position import PIECE
from instance_manager.platform.background import Background
from instance_manager.platform.writer import NonBlockingWriter

WORK = "log-echo"
"""Name of this background work."""

_INTERVAL = 0.05
"""Seconds between rounds."""
_ROUND_MOST = 1 << 20
"""Bytes echoed in a round, of all files together."""
_PENDING_MOST = 1 << 20
"""Bytes that wait for a slow reader; more stays in the files until it has caught up."""
_ENDED_MOST = 64
"""Largest number of logs of ended processes that wait for a stuck reader; each holds a descriptor."""


class ConsoleEcho:
    """Copies what is new in log files to a descriptor, in turn, at a rate that the daemon can afford."""

    def __init__(
        self,
        descriptor: int,
        on_done: Callable[[LogFile], None],
        on_failure: Callable[[str, OSError], None],
        background: Background,
    ) -> None:
        self._writer = NonBlockingWriter(descriptor, room=sys.maxsize)
        self._on_done = on_done
        """Called when the log of an ended process has been echoed completely."""
        self._on_failure = on_failure
        """Called with the name of a log of which something is not echoed, and the reason."""
        self._queue: dict[LogFile, None] = {}
        """Files with something new; the one that has waited longest comes first."""
        self._timer: asyncio.TimerHandle | None = None
        self._background = background
        self._fetches: set[asyncio.Task[None]] = set()
        self._over = False
        """Whether nobody reads the echo any more."""

    @property
    def lines_lost(self) -> int:
        """Number of lines that could not be written."""
        return self._writer.lost_in_all

    def add(self, log: LogFile) -> None:
        """Note that there is something new in a file, or that its process has ended."""
        if not self._over:
            self._queue.setdefault(log)
            self._schedule()

    def has_pending(self, log: LogFile) -> bool:
        """Return whether something of a file has not been echoed yet."""
        return log in self._queue

    def drop(self, log: LogFile) -> None:
        """Forget a file."""
        self._queue.pop(log, None)

    async def close(self, within: float) -> None:
        """Echo the rest, as far as the reader takes it within `within` seconds."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        self._round()
        while (self._queue or self._writer.pending) and loop.time() < end:
            await asyncio.sleep(_INTERVAL / 10)
            self._round()
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        for fetching in self._fetches:
            fetching.cancel()
        self._writer.close()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        try:
            self._round()
        finally:
            if self._queue or self._writer.pending:
                self._schedule()

    def _round(self) -> None:
        if self._over:
            return
        self._writer.flush()
        left = _ROUND_MOST
        for log in tuple(self._queue):
            if left <= 0 or self._is_stuck():
                break
            if not log.trimming:
                left -= self._echo(log)
        if self._writer.has_no_reader:
            self._end()
        elif self._is_stuck():
            slow = OSError(errno.EAGAIN, "the reader of the echo is too slow")
            self._give_up([log for log in self._queue if log.ended][:-_ENDED_MOST], slow)

    def _is_stuck(self) -> bool:
        return self._writer.pending >= _PENDING_MOST

    def _echo(self, log: LogFile) -> int:
        """Echo some lines of a file before the others get their turn; return the number of bytes."""
        del self._queue[log]
        try:
            data = log.echo.next_lines(log.fd, log.size, last=log.ended)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this file, there are others
            data = b""
            if isinstance(error, OSError):  # a broken disk
                self._on_failure(log.name, error)
            else:
                self._background.failed(WORK, error)
            log.echo.skip_to_end(log.size)
        if data is None:
            self._fetch(log)
            data = b""
        if data:
            self._write(log, data)
        if not log.echo.caught_up(log.size, last=log.ended):
            self._queue[log] = None
        elif log.ended:
            self._on_done(log)
        return len(data)

    def _write(self, log: LogFile, data: bytes) -> None:
        lost = self._writer.lost_in_all
        self._writer.write(data)
        if self._writer.lost_in_all > lost and not self._writer.has_no_reader:
            # Full or broken, which passes: what does not fit is counted, and the next lines are tried.
            self._on_failure(log.name, OSError(self._writer.error, os.strerror(self._writer.error)))

    def _end(self) -> None:
        """Echo nothing any more: the reader is gone for good."""
        self._over = True
        self._background.failed(
            WORK, OSError(self._writer.error, "nobody reads the echo of the logs any more")
        )
        ended = [log for log in self._queue if log.ended]
        self._queue.clear()
        for log in ended:
            self._on_done(log)

    def _fetch(self, log: LogFile) -> None:
        """Fetch the next part into the page cache for a later round."""
        task = self._background.start(WORK, fetch(log.threads, log.fd, PIECE, log.echo.offset))
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)

    def _give_up(self, logs: Iterable[LogFile], why: OSError) -> None:
        for log in logs:
            del self._queue[log]
            self._on_failure(log.name, why)
            if log.ended:
                self._on_done(log)
