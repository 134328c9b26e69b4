"""Which files have been written, by one-shot inotify watches."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from asyncinotify import Inotify, Mask, Watch

from instance_manager.adapters.logs.log import LogFile
from instance_manager.platform.background import Background

WORK = "log-watch"
"""Name of this background work."""


class Watcher:
    """Calls back once when a watched file is written."""

    def __init__(self, on_written: Callable[[LogFile], None], background: Background) -> None:
        self._on_written = on_written
        self._background = background
        self._inotify: Inotify | None = None
        self._watches: dict[LogFile, Watch] = {}
        self._logs: dict[int, LogFile] = {}
        """By watch descriptor."""

    def open(self) -> None:
        """Start listening.

        Raises:
            OSError: if the machine has no inotify instance left; then nothing can be watched.
        """
        self._inotify = Inotify(sync_timeout=0)
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._read)

    def close(self) -> None:
        """Stop listening."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def watches(self, log: LogFile) -> bool:
        """Return whether a file is watched."""
        return log in self._watches

    def watch(self, log: LogFile) -> None:
        """Watch a file until it is written.

        Raises:
            OSError: if the machine has no inotify watch left.
        """
        if self._inotify is not None and log not in self._watches:
            watch = self._inotify.add_watch(f"/proc/self/fd/{log.fd}", Mask.MODIFY | Mask.ONESHOT)
            self._watches[log] = watch
            self._logs[watch.wd] = log

    def forget(self, log: LogFile) -> None:
        """Stop watching a file."""
        watch = self._watches.pop(log, None)
        if watch is not None and self._inotify is not None:
            del self._logs[watch.wd]
            with suppress(OSError):  # it has been written this moment
                self._inotify.rm_watch(watch)

    def _read(self) -> None:
        assert self._inotify is not None  # noqa: S101 - or this would not be called
        try:
            for event in self._inotify:
                if Mask.Q_OVERFLOW in event.mask:
                    self._look_at_all()
                elif event.watch is not None and (found := self._logs.pop(event.watch.wd, None)):
                    del self._watches[found]
                    self._on_written(found)
        except Exception as error:  # noqa: BLE001 - nobody foresaw it
            self._background.failed(WORK, error)
            self._look_at_all()  # some events may be lost

    def _look_at_all(self) -> None:
        for log in tuple(self._watches):
            self.forget(log)
            self._on_written(log)
