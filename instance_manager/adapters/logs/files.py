"""The log files of the processes: opened for them, bounded, echoed and read.

A process holds its log itself (O_APPEND), so a busy, stopped or dead daemon never blocks it. The daemon looks
at a file only after inotify has reported a write, and then every few milliseconds as long as it grows: the
watch is one-shot and renewed when the file stops growing, so a process that logs a lot costs no more than one
that logs a little.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import structlog

from instance_manager.adapters.logs import console_echo, probe, retention, trimmer, watcher
from instance_manager.adapters.logs.console_echo import ConsoleEcho
from instance_manager.adapters.logs.log import LogFile
from instance_manager.adapters.logs.opening import NO_DESCRIPTOR, mark, open_again, open_for_reader
from instance_manager.adapters.logs.outputs import Outputs
from instance_manager.adapters.logs.probe import DirectoryProbe
from instance_manager.adapters.logs.reader import LogReader
from instance_manager.adapters.logs.retention import LogRetention
from instance_manager.adapters.logs.trimmer import Trimmer
from instance_manager.adapters.logs.watcher import Watcher
from instance_manager.core.errors import NotFoundError, ResourceExhaustedError
from instance_manager.core.log_retention import LogLimits
from instance_manager.platform.background import Background
from instance_manager.platform.threads import Threads

log = structlog.get_logger(__name__)

FOLLOW, ADOPT = "log-follow", "log-adopt"
WORKS = (FOLLOW, ADOPT, console_echo.WORK, probe.WORK, retention.WORK, trimmer.WORK, watcher.WORK)
"""Names of the background work here."""
_INTERVAL = 0.05
"""Seconds between looks at a file that is being written."""
_INTERVAL_LEAST = 0.001
"""The same while it is close to its size limit."""
_FASTEST = 1 << 30
"""Fastest write rate expected of a process, in bytes per second."""
_LOOK_RETRY = 1.0
"""Seconds until the next look at a file after a failure."""
_ADOPTION_PATIENCE = 2.0
"""Seconds that a reader waits for the log of an adopted process to be found: it may have been moved."""
_ECHO_GRACE = 1.0
"""Seconds that the reader of the echo gets for the rest at the end."""
_END_PATIENCE = 1.0
"""Seconds that the file system gets at the end for what is in progress."""
_THREADS = 4
FAILURES = ("directory", "echo", "inotify", "look", "open", "trim", "watch")
"""Kinds of failures."""


class LogFiles:
    """The log files in one directory; implements `app.interfaces.Logs`.

    Every `writer`, even one that fails, is answered by one `release`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_size: int,
        echo: int | None = None,
        keep: LogLimits | None = None,
        background: Background | None = None,
    ) -> None:
        """Follow no file yet.

        Args:
            directory: where the files are.
            max_size: largest size of a file in bytes.
            echo: descriptor on which lines are repeated; None for none.
            keep: how long to keep the logs of instances that are gone; None for the default.
            background: runs the work on them.
        """
        self._directory = directory
        self._max_size = max_size
        self._background = background or Background(*WORKS)
        self._threads = Threads("logs", _THREADS)
        self._echo: ConsoleEcho | None = None
        if echo is not None:
            self._echo = ConsoleEcho(echo, self._close_if_unused, self._echo_failed, self._background)
        self._writers: Counter[str] = Counter()
        """Number of processes by name that have not been released."""
        self._outputs = Outputs(directory, self._threads, self._failed)
        self._adoptions: dict[str, asyncio.Task[None]] = {}
        """By name, until the log of an adopted process is found."""
        self._logs: dict[str, LogFile] = {}
        """Files by name that are being written, read or echoed."""
        self._dirty: dict[LogFile, None] = {}
        """Files to look at; a dict because it is ordered."""
        self._timer: asyncio.TimerHandle | None = None
        self._next_look = 0.0
        """When the timer expires, as not all of uvloop's timers know it."""
        self._trimmer = Trimmer(
            max_size,
            threads=self._threads,
            background=self._background,
            on_failure=lambda each, error: self._failed("trim", str(self._path(each.name)), error),
            on_end=self._look_again,
        )
        self._watcher = Watcher(self._look_later, self._background)
        self.retention = LogRetention(
            directory, keep or LogLimits(), threads=self._threads, living=lambda: self._writers
        )
        """Removes nothing before it is opened, which must not be before all processes are adopted."""
        self._closing = False
        self.failure_counts = Counter(dict.fromkeys(FAILURES, 0))
        """Number of failures since the start, by kind."""
        self._probe = DirectoryProbe(
            directory, self.failure_counts, self._threads, lambda: self._outputs.lost
        )

    @property
    def lost(self) -> int:
        """Number of names of living processes whose output is lost, as their log could not be opened."""
        return len(self._outputs.lost)

    @property
    def echo_lines_lost(self) -> int:
        """Number of lines that the echo could not write."""
        return self._echo.lines_lost if self._echo is not None else 0

    def open(self) -> None:
        """Create the directory and start following."""
        self._outputs.open()
        try:
            self._watcher.open()
        except OSError as error:
            # Without inotify, all files are polled.
            self._failed("inotify", "", error)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._failed("directory", str(self._directory), error)
        self._probe.open(self._background)

    async def close(self) -> None:
        """Echo the last lines and stop following; a file system that hangs is left alone."""
        self._closing = True
        self._watcher.close()
        self.retention.close()
        answers = not self._probe.late
        await self._probe.close()
        answers = await self._trimmer.close(_END_PATIENCE) and answers
        if self._timer is not None:
            self._timer.cancel()
        for adoption in self._adoptions.values():
            adoption.cancel()
        self._threads.close()
        if not answers:
            log.error("the file system of the logs hangs: their last lines are not echoed")
            for each in self._logs.values():
                each.end()
            return
        for each in self._logs.values():
            with suppress(OSError):
                each.look()
            each.end()
            if self._echo is not None:
                self._echo.add(each)
        if self._echo is not None:
            await self._echo.close(_ECHO_GRACE)
        for each in tuple(self._logs.values()):
            self._drop(each)
        self._outputs.close()

    # --- for the supervisor ---

    @contextmanager
    def writer(self, name: str) -> Iterator[int]:
        """Open the log of a process for appending; /dev/null if that is impossible.

        Raises:
            ResourceExhaustedError: if there is no descriptor left.
        """
        self._writers[name] += 1
        fd = self._open(name)
        try:
            yield fd
        finally:
            os.close(fd)

    def adopt(self, name: str, pid: int | None) -> None:
        """Go on with the log of a process that an earlier daemon has started; see `app.interfaces.Logs`."""
        self._writers[name] += 1
        adoption = self._background.start(ADOPT, self._adopt(name, pid))
        self._adoptions[name] = adoption
        adoption.add_done_callback(lambda done: self._found(name, done))

    def release(self, name: str, *, failed: bool = False) -> None:
        """Report that a process that was given a writer, or whose log was adopted, has ended."""
        self._writers[name] -= 1
        if self._writers[name] <= 0:
            del self._writers[name]
            self._outputs.lost.discard(name)
            self.retention.ended(name, time.time(), failed=failed)
            if each := self._logs.get(name):
                self._look_later(each)

    async def read(self, name: str, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines of a log, without line ends; see `app.interfaces.Logs.read`."""
        if (adoption := self._adoptions.get(name)) is not None:
            await asyncio.wait({adoption}, timeout=_ADOPTION_PATIENCE)
        each, reader = self._reader(name)
        each.readers.add(reader)
        try:
            async with aclosing(reader.lines(follow=follow, tail=tail)) as lines:
                async for line in lines:
                    yield line
        finally:
            each.readers.discard(reader)
            reader.close()
            self._close_if_unused(each)

    def _found(self, name: str, adoption: asyncio.Task[None]) -> None:
        # During a replace, two processes have one name.
        if self._adoptions.get(name) is adoption:
            del self._adoptions[name]

    async def _adopt(self, name: str, pid: int | None) -> None:
        fd = await self._outputs.find(name, pid, lambda: self._writers[name] > 0)
        if fd is None:
            return
        try:
            if self._writers[name]:
                self._begin(name, fd)
        finally:
            os.close(fd)

    # --- opening and closing ---

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _open(self, name: str) -> int:
        with _needing_descriptors(name):
            fd, is_log = self._outputs.open_for(name)
            try:
                if is_log:
                    self._begin(name, fd)
            except OSError:
                os.close(fd)
                raise
        return fd

    def _begin(self, name: str, fd: int) -> None:
        """Start following what a process writes to a descriptor."""
        mark(fd)
        each = self._logs.get(name)
        if each is not None and not each.is_same_file(fd):  # moved or removed by hand
            self._drop(each)
            each = None
        if each is None:
            each = self._logs[name] = LogFile(name, open_again(fd, os.O_RDONLY), self._threads)
            log.debug("log opened", name=name, size=each.size)
        each.ended = False
        self._look_later(each)

    def _reader(self, name: str) -> tuple[LogFile, LogReader]:
        with _needing_descriptors(name):
            each = self._logs.get(name)
            if each is None:
                try:
                    fd = open_for_reader(self._path(name))
                except OSError as error:
                    if error.errno in NO_DESCRIPTOR:
                        raise
                    raise NotFoundError(f"cannot read the log of {name}: {error.strerror}") from error
                each = self._logs[name] = LogFile(name, fd, self._threads)
            try:
                return each, LogReader(each)
            except OSError:
                self._close_if_unused(each)
                raise

    def _close_if_unused(self, each: LogFile) -> None:
        """Close a file that is not written, read, trimmed or echoed any more."""
        in_use = each.readers or each.trimming or each in self._dirty
        echoing = self._echo is not None and self._echo.has_pending(each)
        if each.ended and not in_use and not echoing and self._logs.get(each.name) is each:
            self._drop(each)

    def _drop(self, each: LogFile) -> None:
        log.debug("log closed", name=each.name, size=each.size)
        del self._logs[each.name]
        self._dirty.pop(each, None)
        if self._echo is not None:
            self._echo.drop(each)
        self._watcher.forget(each)
        each.close()

    # --- looking ---

    def _look_later(self, each: LogFile) -> None:
        """Schedule a look at a file, before it could exceed its size limit."""
        if self._closing:
            return
        self._dirty.setdefault(each)
        loop = asyncio.get_running_loop()
        room = self._max_size - each.size
        delay = max(_INTERVAL_LEAST, min(_INTERVAL, room / _FASTEST))
        if each.no_trim_before > loop.time():
            delay = _INTERVAL
        when = loop.time() + delay
        if self._timer is not None and when < self._next_look:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(when, self._look)
            self._next_look = when

    def _look_again(self, each: LogFile) -> None:
        """Look at a file once more if it has not been closed meanwhile."""
        if self._logs.get(each.name) is each:
            self._look_later(each)

    def _look(self) -> None:
        self._timer = None
        looked, self._dirty = self._dirty, {}
        for each in looked:
            try:
                self._look_at(each)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this file, there are others
                if isinstance(error, OSError):
                    self._failed("look", str(self._path(each.name)), error)
                else:
                    self._background.failed(FOLLOW, error)
                asyncio.get_running_loop().call_later(_LOOK_RETRY, self._look_again, each)

    def _look_at(self, each: LogFile) -> None:
        """Trim, echo and wake readers if the file has grown, else wait for inotify."""
        if each.trimming:
            return  # looked at afterwards
        written = self._writers[each.name] > 0
        grown = each.look()
        if written and not grown:
            self._watch(each)
            grown = each.look()  # what came before it was watched
        if not written:
            each.end()
        if self._echo is not None and (grown or each.ended):
            self._echo.add(each)
        excess = self._trimmer.is_due(each)
        if excess and self._trimmer.begin(each):
            return
        if written and (grown or excess or not self._watcher.watches(each)):
            self._look_later(each)
        else:
            self._close_if_unused(each)

    def _watch(self, each: LogFile) -> None:
        try:
            self._watcher.watch(each)
        except OSError as error:
            # It is polled now.
            self._failed("watch", str(self._path(each.name)), error)

    def _echo_failed(self, name: str, error: OSError) -> None:
        self._failed("echo", str(self._path(name)), error)

    def _failed(self, kind: str, path: str, error: OSError) -> None:
        self.failure_counts[kind] += 1
        count = self.failure_counts[kind]
        if count in {1, 10, 100} or count % 1000 == 0:
            log.warning("log trouble", kind=kind, path=path, reason=error.strerror, count=count)


@contextmanager
def _needing_descriptors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_DESCRIPTOR:
            raise
        raise ResourceExhaustedError(
            f"cannot open the log of {name}: {error.strerror}; raise the limit of open files"
        ) from error
