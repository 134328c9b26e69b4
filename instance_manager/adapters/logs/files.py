"""The log files of the processes: opened for them, kept under their bound, echoed and read.

A process holds its log itself (O_APPEND), so a busy, stopped or dead daemon never blocks it. The daemon looks
at a file only after inotify has told that it was written, and at most every `_INTERVAL`: the watch of a file
is one-shot and set again at each look, so a process that logs wildly costs no more than one that logs a bit.
"""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from asyncinotify import Inotify, Mask

from instance_manager.adapters.logs.echo import EchoSink
from instance_manager.adapters.logs.lines import CHUNK, LineSplitter, tail_offset
from instance_manager.adapters.logs.log import LogFile
from instance_manager.adapters.logs.trim import drop_head
from instance_manager.core.errors import NotFoundError, ResourceExhaustedError

log = structlog.get_logger(__name__)

_INTERVAL = 0.05
"""Seconds between looks at files that are being written."""
_INTERVAL_FAST = 0.005
"""The same while one of them grows so fast that it could pass its bound in between."""
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}


class LogFiles:
    """The log files in one directory; implements `app.interfaces.Logs`."""

    def __init__(self, directory: Path, *, max_size: int, echo: EchoSink | None = None) -> None:
        self._directory = directory
        self._max_size = max_size
        self._echo = echo
        self._logs: dict[str, LogFile] = {}
        self._by_path: dict[Path, LogFile] = {}
        self._dirty: set[LogFile] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._trimmer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-trim")
        self._trims: set[asyncio.Task[None]] = set()
        self._devnull = -1
        self.troubles: Counter[str] = Counter()
        """What went wrong, by kind, since the start."""

    def open(self) -> None:
        """Create the directory and begin to follow."""
        self._devnull = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._inotify = Inotify()
        self._follower = asyncio.get_running_loop().create_task(self._follow())
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._trouble("directory", str(self._directory), error)

    async def close(self) -> None:
        """Write out the last lines and stop following."""
        self._follower.cancel()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(self._follower, *self._trims, return_exceptions=True)
        for each in tuple(self._logs.values()):
            self._echo_lines(each, last=True)
        self._trimmer.shutdown()
        self._inotify.close()
        if self._echo is not None:
            self._echo.close()
        os.close(self._devnull)

    # --- for the supervisor ---

    @contextmanager
    def writer(self, name: str) -> Iterator[int]:
        """Open the log of a process for appending; /dev/null if that is impossible.

        Raises:
            ResourceExhaustedError: if there is no descriptor left.
        """
        path = self._path(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                raise ResourceExhaustedError(
                    f"cannot open the log of {name}: {error.strerror}; raise the limit of open files"
                ) from error
            self._trouble("open", str(path), error)
            fd = os.dup(self._devnull)
        else:
            self._begin(name, path, os.fstat(fd).st_size)
        try:
            yield fd
        finally:
            os.close(fd)

    def release(self, name: str) -> None:
        """Say that a process which was given a writer has ended."""
        each = self._logs.get(name)
        if each is None:
            return
        each.writers -= 1
        if each.writers <= 0:
            self._look_later(each)

    async def read(self, name: str, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines of a log, without line ends; see `app.interfaces.Logs.read`."""
        try:
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFoundError(f"cannot read the log of {name}: {error.strerror}") from error
        splitter = LineSplitter()
        written = self._logs.get(name)
        reader = written.attach() if written is not None else LogFile.detached_reader()
        try:
            reader.offset = 0 if tail is None else tail_offset(fd, tail)
            while True:
                await reader.ready()
                seen = reader.version
                while chunk := os.pread(fd, CHUNK, reader.offset):
                    reader.offset += len(chunk)
                    for line in splitter.feed(chunk):
                        yield line
                    await reader.ready()
                if not follow or reader.ended:
                    break
                await reader.changed(seen)
            for line in splitter.end():
                yield line
        finally:
            if written is not None:
                written.detach(reader)
            os.close(fd)

    # --- following ---

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _begin(self, name: str, path: Path, size: int) -> None:
        each = self._logs.get(name)
        if each is None:
            each = self._logs[name] = self._by_path[path] = LogFile(name, path, size)
        each.writers += 1
        self._watch(each)

    def _watch(self, each: LogFile) -> None:
        try:
            each.watch = self._inotify.add_watch(each.path, Mask.MODIFY | Mask.ONESHOT)
        except OSError as error:
            # Without a watch it is looked at all the time; better than not at all.
            self._trouble("watch", str(each.path), error)
            self._look_later(each)

    async def _follow(self) -> None:
        async for event in self._inotify:
            if Mask.Q_OVERFLOW in event.mask:
                for each in self._logs.values():
                    self._look_later(each)
            elif event.watch is not None and (found := self._by_path.get(event.watch.path)):
                self._look_later(found)

    def _look_later(self, each: LogFile) -> None:
        self._dirty.add(each)
        if self._timer is None:
            self._schedule(_INTERVAL)

    def _schedule(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._echo is not None:
            self._echo.flush()
        looked, self._dirty = self._dirty, set()
        interval = _INTERVAL
        for each in looked:
            if each.trimming:
                self._dirty.add(each)
                continue
            grown = self._look_at(each)
            if grown * 8 > self._max_size:
                interval = _INTERVAL_FAST
                self._dirty.add(each)
        if self._dirty or not (self._echo is None or self._echo.idle):
            self._schedule(interval)

    def _look_at(self, each: LogFile) -> int:
        """Trim, echo and wake readers; return how many bytes came since the last look."""
        ended = each.writers <= 0
        if not ended:
            self._watch(each)
        try:
            size = each.path.stat().st_size
        except OSError as error:
            self._trouble("stat", str(each.path), error)
            self._forget(each)
            return 0
        grown, each.size = size - each.size, size
        each.notify()
        caught_up = self._echo_lines(each, last=ended)
        # A quarter of the bound is left for what comes while the file is being cut.
        if size > self._max_size * 3 // 4:
            self._trim(each, size - self._max_size // 2)
        elif not caught_up:
            self._dirty.add(each)
        elif ended:
            self._forget(each)
        return grown

    def _forget(self, each: LogFile) -> None:
        self._logs.pop(each.name, None)
        self._by_path.pop(each.path, None)
        self._dirty.discard(each)
        if each.watch is not None:
            with suppress(OSError):  # it has told, so it is spent
                self._inotify.rm_watch(each.watch)
        each.end()

    def _trim(self, each: LogFile, count: int) -> None:
        each.trimming = True
        task = asyncio.get_running_loop().create_task(self._trim_apart(each, count))
        self._trims.add(task)
        task.add_done_callback(self._trims.discard)

    async def _trim_apart(self, each: LogFile, count: int) -> None:
        """Cut in a thread: the file system writes the file out first, which may take a while."""
        loop = asyncio.get_running_loop()
        try:
            dropped = await loop.run_in_executor(self._trimmer, drop_head, str(each.path), count)
        except OSError as error:
            self._trouble("trim", str(each.path), error)
            dropped = 0
        each.trimmed(dropped)
        self._look_later(each)

    # --- echo ---

    def _echo_lines(self, each: LogFile, *, last: bool) -> bool:
        """Repeat what is new; return whether everything has been repeated."""
        if self._echo is None or self._echo.broken:
            return True
        if not self._echo.ready:
            return False
        with suppress(OSError):
            self._echo.write(each.next_echo(last=last))
        return each.echoed

    def _trouble(self, kind: str, path: str, error: OSError) -> None:
        self.troubles[kind] += 1
        if self.troubles[kind] in {1, 10, 100} or self.troubles[kind] % 1000 == 0:
            log.warning("log trouble", kind=kind, path=path, reason=error.strerror, count=self.troubles[kind])
