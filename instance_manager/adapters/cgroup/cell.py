"""One cell: a cgroup with the processes of one instance."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.cgroup import counters
from instance_manager.adapters.cgroup.events import EventWatcher, populated
from instance_manager.adapters.cgroup.folder import is_gone
from instance_manager.adapters.cgroup.hierarchy import read_own
from instance_manager.adapters.cgroup.killing import kill
from instance_manager.adapters.cgroup.owner import Owner
from instance_manager.app.containment import CellMetadata
from instance_manager.core.process import Identity
from instance_manager.core.usage import Usage
from instance_manager.platform import proc

log = structlog.get_logger(__name__)

TIMEOUT = 5.0
"""Seconds that killed members have to end before they are reported as remaining."""
_AGAIN = 0.01
"""Seconds until another look at an empty cell that cannot be removed yet."""
_DESCRIBED = 8
"""Members that are told of, of more."""
_LONGEST_COMMAND = 16_000
"""Bytes; a longer one is left out, so that there is room for the recovery metadata."""
VERSION = b"1"
"""Format of what is written on a cell."""


class CgroupCell:
    """Implements `app.containment.Cell`."""

    def __init__(
        self, owner: Owner, uuid: str, watcher: EventWatcher, leaders: "dict[int, CgroupCell]"
    ) -> None:
        """Take a cell that there is.

        Args:
            owner: the directory that it is in.
            uuid: its name.
            watcher: tells when it is empty.
            leaders: cells by the PIDs of their leaders, kept by it.
        """
        self.uuid = uuid
        """The UUID of its instance."""
        self._owner = owner
        self._folder = owner.cell(uuid)
        self._watcher = watcher
        self._leaders = leaders
        self._leader: int | None = None
        self._entrance = -1

    @property
    def entrance(self) -> int:
        """Descriptor of its directory, see `app.containment.Cell`."""
        return self._entrance

    def prepare(self, metadata: CellMetadata, *, moving: bool = False) -> None:
        """Write on the cell what it is for, and open it.

        Args:
            metadata: what it is for.
            moving: its processes live elsewhere yet, see `moved`.

        Raises:
            OSError: if that is impossible.
        """
        if moving:
            self._folder.set_attribute("moving", b"1")
        self._folder.set_attribute("since", str(time.time()).encode())
        self._folder.set_attribute("name", metadata.name.encode())
        self._folder.set_attribute("recovery", metadata.recovery_metadata.encode())
        command = b"\0".join(word.encode() for word in metadata.command)
        if len(command) <= _LONGEST_COMMAND:
            self._folder.set_attribute("command", command)
        # Last: without it, nothing of the rest is believed.
        self._folder.set_attribute("version", VERSION)
        self._entrance = self._folder.open_itself()

    def led_by(self, identity: Identity, pidfd: int) -> None:  # noqa: ARG002 - the kernel keeps count
        """Get to know the leader, and close the entrance: it has a descriptor of its own."""
        self._leader = identity.pid
        self._leaders[identity.pid] = self
        self._close_entrance()
        try:
            self._folder.set_attribute("leader", f"{identity.pid} {identity.start_time}".encode())
        except OSError as error:
            log.warning("the leader is not written on its cell", uuid=self.uuid, reason=error.strerror)

    @property
    def moving(self) -> bool:
        """Whether some of its processes may live elsewhere yet."""
        return self._folder.attribute("moving") == b"1"

    def moved(self) -> None:
        """Note that all of its processes are in it now.

        Raises:
            OSError: if that cannot be written.
        """
        self._folder.set_attribute("moving", b"0")

    def prepare_end(self) -> None:
        """Do nothing: what the leader has started is in the cell."""

    def members(self) -> Iterator[int]:
        """Yield the PIDs of all members, those of cgroups below the cell last.

        Raises:
            OSError: if they cannot be told.
        """
        yield from self._folder.members()

    def excludes(self, pid: int) -> bool:
        """Return whether a process is certainly no member, nor was one when it ended.

        Raises:
            OSError: if that cannot be told.
        """
        try:
            # Not from the list of members, which one leaves before it is seen to end.
            text = Path(f"/proc/{pid}/cgroup").read_text("utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return False
        own = (read_own(text) or "").removesuffix(" (deleted)")
        return f"/{self._owner.path.name}/{self.uuid}/" not in f"{own}/"

    def admit(self, pid: int) -> None:
        """Move a process into the cell; nothing if it has ended.

        Raises:
            OSError: if that is impossible.
        """
        with suppress(ProcessLookupError):
            self._folder.write("cgroup.procs", str(pid))

    def discard(self) -> None:
        """Remove the cell, into which nothing has gone."""
        try:
            if not self._folder.remove():
                log.warning("cell not removed", uuid=self.uuid, reason="a process has entered it")
        except OSError as error:
            log.warning("cell not removed", uuid=self.uuid, reason=error.strerror)
        self.close()

    async def end(self) -> str | None:
        """Kill all members until none is left, or until the timeout; then remove the cell."""
        try:
            events = self._folder.open("cgroup.events", os.O_RDONLY)
        except OSError as error:
            return self._told(error)
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    if populated(events):
                        await kill(self._folder)
                        log.debug("cell killed", uuid=self.uuid)
                        await self._emptied(events)
                    elif self._removed():
                        return None
                    else:
                        await asyncio.sleep(_AGAIN)
        except TimeoutError:
            return self._remains()
        except OSError as error:
            return self._told(error)
        finally:
            os.close(events)

    async def _emptied(self, events: int) -> None:
        """Wait until the cell is empty, or until some may have been missed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT / 10):
                while populated(events):
                    await self._watcher.change(events)

    def _removed(self) -> bool:
        """Remove the cell, which is empty; return whether nobody has entered it meanwhile."""
        try:
            removed = self._folder.remove()
        except OSError as error:
            # Nobody lives in it: that is what counts. The next daemon that can will remove it.
            log.warning("empty cell not removed", uuid=self.uuid, reason=error.strerror)
            return True
        if removed:
            log.debug("cell removed", uuid=self.uuid)
        return removed

    def _told(self, error: OSError) -> str | None:
        """Return what is known of a cell that cannot be looked at: nothing of it is left if it is gone.

        The kernel does not let a cgroup be removed while a process lives in it.
        """
        if is_gone(error):
            try:
                if self._owner.is_there() and not self._folder.exists():
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

    def usage(self) -> Usage:
        """Return what the members use, as far as the kernel keeps count.

        Raises:
            OSError: if the cell cannot be looked at.
        """
        return counters.usage(self._folder, self._since())

    def _since(self) -> float:
        with suppress(TypeError, ValueError):
            return float(self._folder.attribute("since") or "")
        return self._folder.made_at()

    def killed_for_memory(self) -> str:
        """Return in words for which limit the kernel has killed a member; empty if it has not."""
        return counters.killed_for_memory(self._folder)

    def close(self) -> None:
        """Let go of the cell."""
        self._close_entrance()
        if self._leader is not None and self._leaders.get(self._leader) is self:
            del self._leaders[self._leader]

    def _close_entrance(self) -> None:
        if self._entrance >= 0:
            os.close(self._entrance)
            self._entrance = -1
