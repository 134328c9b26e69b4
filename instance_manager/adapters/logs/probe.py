"""Checking that the log directory can be written.

The processes write their logs themselves and hardly ever report that a write has failed, so nobody would
notice a disk that is full, read-only or broken.
"""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.platform.background import Background
from instance_manager.platform.threads import Threads

log = structlog.get_logger(__name__)

WORK = "log-probe"
"""Name of this background work."""
_INTERVAL = 5.0
"""Seconds between attempts."""
_LATE = 5.0
"""Seconds after which an attempt that has not ended counts as failed, too."""
_BLOCK = b"\0" * 4096
_INCONCLUSIVE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EMFILE, errno.ENFILE}
"""Errors that say nothing about the disk: no support for unnamed files, or no descriptor left."""


class DirectoryProbe:
    """Writes an unnamed file from time to time, in a thread because a broken file system may not answer."""

    def __init__(
        self,
        directory: Path,
        failures: Counter[str],
        threads: Threads,
        lost: Callable[[], Collection[str]],
    ) -> None:
        """The attempts begin with `open`.

        Args:
            directory: the directory to write to.
            failures: where failed attempts are counted, under `write`.
            threads: run the attempts.
            lost: returns the names of the living processes whose logs are lost whatever the disk does.
        """
        self._directory = directory
        self._failures = failures
        self._threads = threads
        self._lost = lost
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        """Why the last attempt failed; empty if it did not."""
        self.late = False
        """Whether the file system owes an answer for longer than is good."""

    def open(self, background: Background) -> None:
        """Start the periodic attempts."""
        self._task = background.every(WORK, _INTERVAL, self._attempt)

    async def close(self) -> None:
        """Stop the attempts."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _attempt(self) -> None:
        attempt = self._threads.run(_reason_not_to_write, self._directory)
        done, _ = await asyncio.wait({attempt}, timeout=_LATE)
        if not done:
            self.late = True
            self._on_attempt(f"the file system has not answered for {_LATE:g} s")
        self._on_attempt(await attempt)
        self.late = False

    def _on_attempt(self, reason: str) -> None:
        self._failures["write"] += bool(reason)
        if reason == self._reason:
            return
        self._reason = reason
        path, count = str(self._directory), self._failures["write"]
        if reason:
            log.error("log trouble", kind="write", path=path, reason=reason, count=count)
        elif lost := sorted(self._lost()):
            log.warning(
                "logs can be written again, but not those of the processes that were started without one",
                path=path,
                count=count,
                lost=lost,
            )
        else:
            log.info("logs can be written again", path=path, count=count)


def _reason_not_to_write(directory: Path) -> str:
    """Write an unnamed file, which disappears when closed; return why that failed, empty if it worked."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _BLOCK)
        finally:
            os.close(fd)
    except OSError as error:
        return "" if error.errno in _INCONCLUSIVE else error.strerror or str(error)
    return ""
