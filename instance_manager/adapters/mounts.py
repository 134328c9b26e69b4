"""Which volumes are mounted read-only: /proc/self/mountinfo, read when the kernel reports a change."""

import asyncio
import os
import re
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.platform.background import Background

log = structlog.get_logger(__name__)

MOUNTINFO = Path("/proc/self/mountinfo")
WORK = "mounts"
"""Name of this background work."""

_GLOBAL_MOUNT = re.compile(r".*/plugins/kubernetes\.io/csi/driver\.longhorn\.io/([0-9a-f]{64})/globalmount")
_DRIVER = "/driver.longhorn.io/"
_MOUNT_POINT, _MOUNT_OPTIONS = 4, 5  # fields, proc_pid_mountinfo(5)
_READ_ONLY = {"ro", "emergency_ro"}
"""Options of a read-only mount; since Linux 6.15, ext4 sets the second one after an I/O error."""
_INTERVAL = 10.0
"""Seconds between looks without an event: the kernel does not report that a file system has failed."""
_PAUSE = 0.1
"""Shortest time between looks, in seconds: there may be thousands of mounts, and many changes in a row."""


def read_only_volumes(lines: Iterable[str]) -> frozenset[str]:
    """Return the keys (see `core.conditions.volume_key`) of the volumes mounted read-only.

    A mount is read-only by its own options, or by those of its file system, which becomes read-only after an
    I/O error. Of several mounts on one mount point, the last one counts, as it hides the others.
    """
    found: dict[str, bool] = {}
    for line in lines:
        if _DRIVER not in line:
            continue
        mount, _, filesystem = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) <= _MOUNT_OPTIONS or not (match := _GLOBAL_MOUNT.fullmatch(fields[_MOUNT_POINT])):
            continue
        options = fields[_MOUNT_OPTIONS].split(",") + filesystem.rpartition(" ")[2].strip().split(",")
        found[match[1]] = not _READ_ONLY.isdisjoint(options)
    return frozenset(key for key, is_read_only in found.items() if is_read_only)


class MountWatcher:
    """Calls back with the read-only volumes, once at the start and whenever they have changed."""

    def __init__(
        self,
        on_change: Callable[[frozenset[str]], None],
        background: Background,
        path: Path = MOUNTINFO,
    ) -> None:
        self._on_change = on_change
        self._background = background
        self._path = path
        self._last: frozenset[str] | None = None
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Look once and start watching."""
        self._loop = asyncio.get_running_loop()
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        # The kernel reports a change as an exceptional condition, which the event loop cannot wait for; but
        # it can wait for an epoll that does.
        self._epoll = select.epoll()
        with suppress(PermissionError):  # a regular file, in a test: nothing to wait for
            self._epoll.register(self._fd, select.EPOLLPRI | select.EPOLLERR)
        self._loop.add_reader(self._epoll.fileno(), self._changed)
        self._look()
        # The event loop may start to wait a little later, and a change before that would be lost.
        self._look_after(_PAUSE)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._fd)

    def _changed(self) -> None:
        self._epoll.poll(0)
        self._look_after(_PAUSE)

    def _look_after(self, seconds: float) -> None:
        """Look `seconds` after the last look, at once if that is over."""
        if self._timer is not None:
            self._timer.cancel()
        delay = self._looked + seconds - self._loop.time()
        if delay > 0:
            self._timer = self._loop.call_later(delay, self._look)
        else:
            self._look()

    def _look(self) -> None:
        self._timer = None
        self._looked = self._loop.time()
        with self._background.guard(WORK):
            self._compare()
        self._look_after(_INTERVAL)

    def _compare(self) -> None:
        with self._path.open(encoding="utf-8", errors="surrogateescape") as lines:
            now = read_only_volumes(lines)
        log.debug("mounts read", read_only=sorted(now), changed=now != self._last)
        if now != self._last:
            self._on_change(now)
            self._last = now
