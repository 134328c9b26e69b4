"""The log files of the processes: opened for them, bounded, echoed and read.

A process holds its log itself (O_APPEND), so a busy, stopped or dead daemon never blocks it. The daemon looks
at a file only after inotify has reported a write, and then every few milliseconds as long as it grows: the
watch is one-shot and renewed when the file stops growing, so a process that logs a lot costs no more than one
that logs a little.
"""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import structlog

from instance_manager.adapters.logs.console_echo import ConsoleEcho
from instance_manager.adapters.logs.log import LogFile
from instance_manager.adapters.logs.opening import open_again, open_for_reader, open_for_writer
from instance_manager.adapters.logs.probe import DirectoryProbe
from instance_manager.adapters.logs.reader import LogReader
from instance_manager.adapters.logs.trim import drop_head
from instance_manager.adapters.logs.watcher import Watcher
from instance_manager.core.errors import NotFoundError, ResourceExhaustedError

log = structlog.get_logger(__name__)

_INTERVAL = 0.05
"""Seconds between looks at a file that is being written."""
_INTERVAL_LEAST = 0.001
"""The same while it is close to its size limit."""
_FASTEST = 1 << 30
"""Fastest write rate expected of a process, in bytes per second."""
_TRIM_RETRY = 1.0
"""Seconds until the next attempt to cut a file that could not be cut."""
_ECHO_GRACE = 1.0
"""Seconds that the reader of the echo gets for the rest at the end."""
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
FAILURES = ("directory", "echo", "inotify", "look", "open", "trim", "watch")
"""Kinds of failures."""


class LogFiles:
    """The log files in one directory; implements `app.interfaces.Logs`.

    Every `writer`, even one that fails, is answered by one `release`.
    """

    def __init__(self, directory: Path, *, max_size: int, echo: int | None = None) -> None:
        """Follow no file yet; `echo` is the descriptor on which lines are repeated, if any."""
        self._directory = directory
        self._max_size = max_size
        self._echo = ConsoleEcho(echo, self._close_if_unused, self._echo_failed) if echo is not None else None
        self._writers: Counter[str] = Counter()
        """Number of processes by name that have not been released."""
        self._logs: dict[str, LogFile] = {}
        """Files by name that are being written, read or echoed."""
        self._dirty: dict[LogFile, None] = {}
        """Files to look at; a dict because it is ordered."""
        self._timer: asyncio.TimerHandle | None = None
        self._next_look = 0.0
        """When the timer expires, as not all of uvloop's timers know it."""
        self._trimmer = ThreadPoolExecutor(max_workers=4, thread_name_prefix="log-trim")
        self._trims: set[asyncio.Task[None]] = set()
        self._watcher = Watcher(self._look_later)
        self._devnull = -1
        self.failure_counts = Counter(dict.fromkeys(FAILURES, 0))
        """Number of failures since the start, by kind."""
        self._probe = DirectoryProbe(directory, self.failure_counts, self._trimmer)

    def open(self) -> None:
        """Create the directory and start following."""
        self._devnull = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._watcher.open()
        except OSError as error:
            # Without inotify, all files are polled.
            self._failed("inotify", "", error)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._failed("directory", str(self._directory), error)
        self._probe.open()

    async def close(self) -> None:
        """Echo the last lines and stop following."""
        self._watcher.close()
        await self._probe.close()
        await asyncio.gather(*self._trims)
        if self._timer is not None:
            self._timer.cancel()
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
        self._trimmer.shutdown()
        os.close(self._devnull)

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

    def release(self, name: str) -> None:
        """Report that a process that was given a writer has ended."""
        self._writers[name] -= 1
        if self._writers[name] <= 0:
            del self._writers[name]
            if each := self._logs.get(name):
                self._look_later(each)

    async def read(self, name: str, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines of a log, without line ends; see `app.interfaces.Logs.read`."""
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

    # --- opening and closing ---

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _open(self, name: str) -> int:
        path = self._path(name)
        with _needing_descriptors(name):
            try:
                fd = open_for_writer(path)
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    raise
                self._failed("open", str(path), error)
                return os.dup(self._devnull)
            try:
                self._begin(name, fd)
            except OSError:
                os.close(fd)
                raise
        return fd

    def _begin(self, name: str, fd: int) -> None:
        """Start following what a process writes to a descriptor."""
        each = self._logs.get(name)
        if each is not None and not each.is_same_file(fd):  # moved or removed by hand
            self._drop(each)
            each = None
        if each is None:
            each = self._logs[name] = LogFile(name, open_again(fd, os.O_RDONLY))
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
                    if error.errno in _NO_DESCRIPTOR:
                        raise
                    raise NotFoundError(f"cannot read the log of {name}: {error.strerror}") from error
                each = self._logs[name] = LogFile(name, fd)
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

    def _look(self) -> None:
        self._timer = None
        looked, self._dirty = self._dirty, {}
        for each in looked:
            try:
                self._look_at(each)
            except OSError as error:
                self._failed("look", str(self._path(each.name)), error)

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
        # A quarter of the limit is left for what is written while the file is being cut.
        excess = each.size > self._max_size * 3 // 4
        if excess and each.no_trim_before <= asyncio.get_running_loop().time():
            self._trim(each)
        elif written and (grown or excess or not self._watcher.watches(each)):
            self._look_later(each)
        else:
            self._close_if_unused(each)

    def _watch(self, each: LogFile) -> None:
        try:
            self._watcher.watch(each)
        except OSError as error:
            # It is polled now.
            self._failed("watch", str(self._path(each.name)), error)

    def _trim(self, each: LogFile) -> None:
        each.trimming = True
        task = asyncio.get_running_loop().create_task(self._trim_in_thread(each))
        self._trims.add(task)
        task.add_done_callback(self._trims.discard)

    async def _trim_in_thread(self, each: LogFile) -> None:
        """Cut in a thread: the file system first writes the file out, which may be slow."""
        loop = asyncio.get_running_loop()
        try:
            with each.open_to_cut() as fd:
                count, most = each.size - self._max_size // 2, self._max_size * 7 // 8
                cut = await loop.run_in_executor(self._trimmer, drop_head, fd, count, most)
                each.trimmed(cut)
                log.debug("log trimmed", name=each.name, dropped=cut.dropped, size=each.size)
        except OSError as error:
            self._failed("trim", str(self._path(each.name)), error)
            each.not_trimmed(until=loop.time() + _TRIM_RETRY)
        if self._logs.get(each.name) is each:
            self._look_later(each)

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
        if error.errno not in _NO_DESCRIPTOR:
            raise
        raise ResourceExhaustedError(
            f"cannot open the log of {name}: {error.strerror}; raise the limit of open files"
        ) from error
