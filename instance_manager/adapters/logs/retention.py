"""Removing the logs of instances that are gone, in a thread; never one that a process still fills.

The directory may hold files of others (somebody may choose /var/log): only what bears the mark of a log, or
the name of an instance that this daemon knows, is one.
"""

import asyncio
import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from instance_manager.adapters.logs.opening import is_marked
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.log_retention import LogLimits, StoredLog, surplus
from instance_manager.core.names import validate_name
from instance_manager.platform.background import Background
from instance_manager.platform.threads import NoThreadError, Threads

log = structlog.get_logger(__name__)

WORK = "log-retention"
"""Name of this background work."""
_INTERVAL = 600.0
"""Seconds between passes if no instance is deleted."""
_PAUSE = 5.0
"""Seconds between passes at least: deletes come in swarms."""
_PATIENCE = 2.0
"""Seconds for a directory to answer before instances are adopted."""
_ASIDE = ".removing"
"""Directory below that of the logs, of those that are being removed; a daemon that dies may leave some."""
_BLOCK = 512
"""Bytes of the unit in which the blocks of a file are counted, stat(2)."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A log file in the directory."""

    name: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class _Sight:
    """A log as it was seen first since it was written last."""

    last: float
    """When that was, or its instance ended."""
    age: float
    """Seconds, by the system's clock, which may have been wrong and may be set at any time."""
    when: float
    """When that was, by a clock that nobody sets."""


@dataclass(frozen=True, slots=True)
class _End:
    """How an instance ended."""

    time: float
    failed: bool


class LogRetention:
    """Removes logs that are too old, or too many, after each delete and from time to time."""

    def __init__(
        self,
        directory: Path,
        limits: LogLimits,
        *,
        threads: Threads,
        living: Callable[[], Collection[str]],
    ) -> None:
        """Remove nothing yet; `living` returns the names of the instances whose logs are being written."""
        self._directory = directory
        self._limits = limits
        self._threads = threads
        self._living = living
        self._ends: dict[str, _End] = {}
        """Of the instances whose logs are still there, as far as it is known."""
        self._sights: dict[str, _Sight] = {}
        """The first of each log as it is now: from then on it ages as time really passes."""
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.files = 0
        """Number of log files at the last pass."""
        self.size = 0
        """Bytes that they took on the disk."""
        self.removed = 0
        """Number of logs removed since the start."""

    async def put_back(self) -> None:
        """Put logs back that a daemon was removing when it died, if they are written again."""
        with suppress(TimeoutError, NoThreadError):  # the first pass does it as well
            async with asyncio.timeout(_PATIENCE):
                await self._threads.run(_finish_all, self._directory)

    def open(self, background: Background) -> None:
        """Begin with the first pass."""
        self._task = background.run(WORK, self._run)

    def close(self) -> None:
        """Remove nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def ended(self, name: str, when: float, *, failed: bool) -> None:
        """Note that an instance is gone, at a time in seconds since the epoch."""
        self._ends[name] = _End(when, failed)
        self._due.set()

    async def _run(self) -> None:
        while True:
            self._due.clear()
            await self._pass()
            await asyncio.sleep(_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await self._due.wait()

    async def _pass(self) -> None:
        known = {*self._living(), *self._ends}
        found = await self._threads.run(_scan, self._directory, known)
        names = {each.name for each in found}
        self._ends = {name: end for name, end in self._ends.items() if name in names}
        self._sights = {name: sight for name, sight in self._sights.items() if name in names}
        living = set(self._living())
        doomed = surplus([self._judged(each, living) for each in found], self._limits)
        gone = await self._threads.run(_remove, self._directory, [each.name for each in doomed])
        self.removed += len(gone)
        self.files = len(found) - len(gone)
        self.size = sum(each.size for each in found if each.name not in gone)
        if len(gone) < len(doomed):
            log.debug("logs kept that a process may still write", count=len(doomed) - len(gone))
        if gone:
            freed = sum(each.size for each in doomed if each.name in gone)
            log.info("old logs removed", count=len(gone), bytes=freed, kept=self.files, kept_bytes=self.size)

    def _judged(self, each: _Found, living: Collection[str]) -> StoredLog:
        end = self._ends.get(each.name)
        last = max(each.modified, end.time) if end else each.modified
        now, sight = _uptime(), self._sights.get(each.name)
        if sight is None or sight.last != last:
            sight = self._sights[each.name] = _Sight(last, max(0.0, time.time() - last), now)
        failed = end is not None and end.failed
        return StoredLog(each.name, each.size, sight.age + now - sight.when, each.name in living, failed)


def _uptime() -> float:
    """Return the seconds since the start of the machine; the time that it was suspended counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _scan(directory: Path, known: Collection[str]) -> list[_Found]:
    """Return the logs in a directory: regular files that are named like one, and known or marked as one."""
    found = []
    _finish_all(directory)
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name.removesuffix(".log")
            if name == entry.name or not _is_name(name):
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and (name in known or is_marked(directory / entry.name)):
                    found.append(_Found(name, status.st_blocks * _BLOCK, status.st_mtime))
    return found


def _is_name(text: str) -> bool:
    try:
        validate_name(text)
    except InvalidArgumentError:
        return False
    return True


def _remove(directory: Path, names: Collection[str]) -> set[str]:
    """Remove logs that no process has open for writing; return the names of those that are gone."""
    gone: set[str] = set()
    if not names:
        return gone
    folder = directory / _ASIDE
    folder.mkdir(exist_ok=True)
    for name in names:
        path = directory / f"{name}.log"
        with suppress(OSError):
            if is_written(path):
                continue
            # An instance that is created in this moment opens either this file, and is seen, or a new one.
            path.rename(folder / path.name)
            if _finish(folder / path.name):
                gone.add(name)
    with suppress(OSError):
        folder.rmdir()
    return gone


def _finish_all(directory: Path) -> None:
    """Finish what a daemon has left that died while it removed logs."""
    folder = directory / _ASIDE
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # of something that no daemon has put there
                _finish(path)
        folder.rmdir()


def _finish(aside: Path) -> bool:
    """Remove a log that was put aside, or put it back if it is written again; return whether it is gone."""
    written = is_written(aside)
    if written:
        with suppress(FileExistsError):
            os.link(aside, aside.parent.with_name(aside.name))
    aside.unlink()
    return not written


def is_written(path: Path) -> bool:
    """Return whether a process has a file open for writing; True if that cannot be told.

    Raises:
        OSError: if the file cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # The kernel grants a lease for reading only where nobody writes. Who opens the file for writing
        # meanwhile has the holder told by a signal, which by default would end this program.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return True
            return _is_output(os.fstat(fd))  # a file system without leases
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    finally:
        os.close(fd)


def _is_output(status: os.stat_result) -> bool:
    """Return whether a file is stdout or stderr of a process; True if that cannot be told."""
    for process in Path("/proc").iterdir():
        # No instance is the first process, which in a container may be one that nobody may look at.
        for number in (1, 2) if process.name.isdecimal() and process.name != "1" else ():
            try:
                if os.path.samestat(status, (process / "fd" / str(number)).stat()):
                    return True
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError:
                return True
    return False
