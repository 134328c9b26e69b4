"""One cell: a cgroup with the processes of one instance."""

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import structlog

from instance_manager.adapters.cgroup.events import EventWatcher, populated
from instance_manager.adapters.cgroup.folder import folders_in, open_file, open_folder, read, write
from instance_manager.adapters.cgroup.memory import killed_for_memory
from instance_manager.adapters.cgroup.xattrs import get_attribute, set_attribute
from instance_manager.app.containment import CellMetadata
from instance_manager.core.process import Identity
from instance_manager.platform import proc

log = structlog.get_logger(__name__)

TIMEOUT = 5.0
"""Seconds that killed members have to end before they are reported as remaining."""
_GONE = {errno.ENOENT, errno.ENODEV}
_DESCRIBED = 8
"""Members that are told of, of more."""
VERSION = b"1"


class CgroupCell:
    """Implements `app.containment.Cell`. Its directory is found by its name, in one that is kept open."""

    def __init__(
        self, parent: int, uuid: str, watcher: EventWatcher, leaders: "dict[int, CgroupCell]"
    ) -> None:
        """Take a cell that there is.

        Args:
            parent: descriptor of the directory that it is in.
            uuid: its name.
            watcher: tells when it is empty.
            leaders: cells by the PIDs of their leaders, kept by it.

        Raises:
            OSError: if it cannot be opened.
        """
        self._parent = parent
        self._uuid = uuid
        self._watcher = watcher
        self._leaders = leaders
        self._leader: int | None = None
        self._entrance = -1
        self.folder = open_folder(uuid, parent)

    @property
    def entrance(self) -> int:
        """The descriptor by which a process enters, see `app.containment.Cell`."""
        return self._entrance

    def prepare(self, metadata: CellMetadata) -> None:
        """Write on the cell what it is for, and open it.

        Raises:
            OSError: if that is impossible.
        """
        set_attribute(self.folder, "name", metadata.name.encode())
        set_attribute(self.folder, "recovery", metadata.recovery_metadata.encode())
        with suppress(OSError):  # too long; then the process tells its command line itself
            set_attribute(self.folder, "command", b"\0".join(word.encode() for word in metadata.command))
        # Last: without it, nothing of the rest is believed.
        set_attribute(self.folder, "version", VERSION)
        self._entrance = open_file(self.folder, "cgroup.procs", os.O_WRONLY)

    def led_by(self, identity: Identity, pidfd: int) -> None:  # noqa: ARG002 - the kernel keeps count
        """Get to know the leader, and close the entrance: it has a descriptor of its own."""
        self._leader = identity.pid
        self._leaders[identity.pid] = self
        self._close_entrance()
        try:
            set_attribute(self.folder, "leader", f"{identity.pid} {identity.start_time}".encode())
        except OSError as error:
            log.warning("the leader is not written on its cell", uuid=self._uuid, reason=error.strerror)

    def leader(self) -> Identity | None:
        """Return the leader that is written on the cell; None if none is."""
        written = get_attribute(self.folder, "leader")
        return Identity(*map(int, written.split())) if written else None

    def prepare_end(self) -> None:
        """Do nothing: what the leader has started is in the cell."""

    def members(self) -> Iterator[int]:
        """Yield the PIDs of all members, those of cgroups below the cell last.

        Raises:
            OSError: if they cannot be told.
        """
        yield from _members(self.folder)

    def excludes(self, pid: int) -> bool:
        """Return whether a process is no member.

        Raises:
            OSError: if that cannot be told.
        """
        return pid not in set(self.members())

    def admit(self, pid: int) -> None:
        """Move a process into the cell; nothing if it has ended.

        Raises:
            OSError: if that is impossible.
        """
        with suppress(ProcessLookupError):
            write(self.folder, "cgroup.procs", str(pid))

    def discard(self) -> None:
        """Remove the cell, into which nothing has gone."""
        try:
            _remove(self._parent, self._uuid)
        except OSError as error:
            log.warning("cell not removed", uuid=self._uuid, reason=error.strerror)
        self.close()

    async def end(self) -> str | None:
        """Kill all members until none is left, or until the timeout; then remove the cell."""
        try:
            events = open_file(self.folder, "cgroup.events", os.O_RDONLY)
        except OSError as error:
            return self._told(error)
        try:
            async with asyncio.timeout(TIMEOUT):
                while populated(events):
                    self._kill()
                    await self._emptied(events)
            _remove(self._parent, self._uuid)
        except TimeoutError:
            return self._remains()
        except OSError as error:
            return self._told(error)
        finally:
            os.close(events)
        log.debug("cell removed", uuid=self._uuid)
        return None

    async def _emptied(self, events: int) -> None:
        """Wait until the cell is empty, or until some may have been missed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT / 10):
                while populated(events):
                    await self._watcher.change(events)

    def _kill(self) -> None:
        """Kill all members at once; one by one where the kernel cannot, or the hierarchy is read-only."""
        try:
            write(self.folder, "cgroup.kill", "1")
            log.debug("cell killed", uuid=self._uuid)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            log.debug("members are killed one by one", uuid=self._uuid, reason=error.strerror)
            for pid in tuple(self.members()):
                self._kill_one(pid)

    def _kill_one(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                # Looked at after the pidfd was opened: from now on the PID cannot become another's.
                if not self.excludes(pid):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)

    def _told(self, error: OSError) -> str | None:
        """Return what is known of a cell that cannot be looked at: nothing of it is left if it is gone."""
        if error.errno in _GONE:
            try:
                os.stat(self._uuid, dir_fd=self._parent)
            except FileNotFoundError:
                return None
            except OSError as unreadable:
                error = unreadable
        return f"its cgroup cannot be looked at: {error.strerror}"

    def _remains(self) -> str:
        try:
            left = list(self.members())
        except OSError as error:
            return f"its cgroup cannot be looked at: {error.strerror}"
        words = [proc.describe(pid) for pid in left[:_DESCRIBED]]
        if len(left) > _DESCRIBED:
            words.append(f"{len(left) - _DESCRIBED} more")
        return "; ".join(words) or "its cgroup is not empty, though it shows no process"

    def killed_for_memory(self) -> str:
        """Return in words for which limit the kernel has killed a member; empty if it has not."""
        return killed_for_memory(self.folder)

    def close(self) -> None:
        """Let go of the cell."""
        self._close_entrance()
        if self._leader is not None and self._leaders.get(self._leader) is self:
            del self._leaders[self._leader]
        if self.folder >= 0:
            os.close(self.folder)
            self.folder = -1

    def _close_entrance(self) -> None:
        if self._entrance >= 0:
            os.close(self._entrance)
            self._entrance = -1


def remove_if_empty(parent: int, uuid: str) -> bool:
    """Remove a cell if no process is in it or below; return whether it is gone.

    Raises:
        OSError: if that cannot be told.
    """
    try:
        _remove(parent, uuid)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in _GONE:
            raise
    return True


def _members(folder: int) -> Iterator[int]:
    yield from map(int, read(folder, "cgroup.procs").split())
    for name in folders_in(folder):
        with suppress(FileNotFoundError):
            nested = open_folder(name, folder)
            try:
                yield from tuple(_members(nested))
            finally:
                os.close(nested)


def _remove(parent: int, name: str) -> None:
    """Remove a cgroup, and those that its members have made below it."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            raise
        folder = open_folder(name, parent)
        try:
            below = folders_in(folder)
            for nested in below:
                _remove(folder, nested)
        finally:
            os.close(folder)
        if not below:
            raise
        os.rmdir(name, dir_fd=parent)
