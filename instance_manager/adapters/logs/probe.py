"""Can the log directory be written?

The processes write their logs themselves, and an instance hardly ever tells that a write of its log failed:
a disk that is full, read-only or broken would be noticed by nobody.
"""

import asyncio
import errno
import os
from collections import Counter
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_INTERVAL = 5.0
"""Seconds between attempts."""
_LATE = 5.0
"""Seconds after which an attempt that has not ended is a trouble, too."""
_BLOCK = b"\0" * 4096
_TELLS_NOTHING = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EMFILE, errno.ENFILE}
"""The file system has no files without a name, or this process no descriptor."""


class DirectoryProbe:
    """Tries now and then to write a file without a name, in a thread: a broken file system may not answer."""

    def __init__(self, directory: Path, troubles: Counter[str], executor: Executor) -> None:
        """Try to write in a directory.

        Args:
            directory: to write in.
            troubles: where each attempt that failed is counted, under `write`.
            executor: to write in.
        """
        self._directory = directory
        self._troubles = troubles
        self._executor = executor
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        """Why the last attempt failed; empty if it did not."""

    def open(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            attempt = asyncio.get_running_loop().run_in_executor(
                self._executor, _reason_not_to_write, self._directory
            )
            done, _ = await asyncio.wait({attempt}, timeout=_LATE)
            if not done:
                self._found(f"the file system has not answered for {_LATE:g} s")
            self._found(await attempt)

    def _found(self, reason: str) -> None:
        self._troubles["write"] += bool(reason)
        if reason == self._reason:
            return
        self._reason = reason
        path, count = str(self._directory), self._troubles["write"]
        if reason:
            log.error("log trouble", kind="write", path=path, reason=reason, count=count)
        else:
            log.info("logs can be written again", path=path, count=count)


def _reason_not_to_write(directory: Path) -> str:
    """Write a file that is gone as soon as it is closed; return why that failed, empty if it did not."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _BLOCK)
        finally:
            os.close(fd)
    except OSError as error:
        return "" if error.errno in _TELLS_NOTHING else error.strerror or str(error)
    return ""
