"""The Protocol of containment, without help of the kernel."""

import asyncio
import itertools
import os
import select
import signal
from collections.abc import Collection, Iterable, Iterator, Mapping

import structlog

from instance_manager.adapters.process.reaper import Reaper
from instance_manager.adapters.process.session.descendants import DescendantReaper
from instance_manager.adapters.process.session.leaders import Leader, boot_ticks
from instance_manager.adapters.process.session.search import find_marked
from instance_manager.adapters.process.session.trees import trees
from instance_manager.app.containment import CellMetadata, ContainmentStatus, Kind
from instance_manager.app.interfaces import Findings
from instance_manager.core.limits import InstanceLimits
from instance_manager.core.process import Identity
from instance_manager.core.usage import Usage
from instance_manager.platform import proc
from instance_manager.platform.reading import BoundedReader
from instance_manager.platform.usage import usage_of

log = structlog.get_logger(__name__)

_NO_LIMITS = InstanceLimits()
_SIGHTING_INTERVAL = 1.0
"""Seconds between looks at which processes of earlier daemons live."""
_MOST_GENERATIONS, _STRAY_DELAY = 100, 0.01
"""How often to look for strays at the end, as one that is killed may leave others, and seconds in between."""


class SessionContainment:
    """Implements `app.containment.Containment`."""

    def __init__(
        self, reaper: Reaper, owner: str, guard: int | None, limits: InstanceLimits = _NO_LIMITS
    ) -> None:
        """Look for nothing yet.

        Args:
            reaper: of the children of this process; it need not be open.
            owner: the state directory's value of `contract.OWNER_VARIABLE`.
            guard: PID of the guard, which inherits what instances leave while no daemon runs, if any.
            limits: what is wanted of each instance, and cannot be had.
        """
        self.why = ""
        """Why it is used."""
        self._limits = limits
        self.guard = guard
        self._reaper = reaper
        self._owner = owner
        self._reader = BoundedReader()
        self._own = DescendantReaper(
            self._reader,
            near=reaper.inherited,
            parent=os.getpid,
            reap=reaper.reap,
            alone=lambda: reaper.alone,
        )
        # In all processes, not only the guard's children: those of an earlier guard are init's.
        self._earlier = DescendantReaper(self._reader, parent=lambda: guard)
        reaper.on_reaped = self._own.look_soon
        self.leaders: dict[int, SessionCell] = {}
        """Cells by the PIDs of their leaders."""
        self.sighted: dict[SessionCell, int] = {}
        """The leaders of earlier daemons that live, with their pidfds."""
        self._sighting: asyncio.TimerHandle | None = None

    def status(self) -> ContainmentStatus:
        """Return why it is used."""
        refused = dict.fromkeys(self._limits.files(), "limits need cgroups: see --containment")
        return ContainmentStatus(Kind.SESSION, self.why, limits=self._limits, limits_refused=refused)

    def create(self, metadata: CellMetadata) -> "SessionCell":
        """Return the cell of a new instance."""
        return SessionCell(self, self._own, metadata.uuid)

    def take_over(self, uuid: str, identity: Identity) -> "SessionCell":
        """Return the cell of an instance of an earlier daemon."""
        return SessionCell(self, self._earlier, uuid, Leader(identity, uuid))

    def around(self, leader: int) -> "SessionCell | None":
        """Return the cell of a leader; of a process that is not taken over yet, a passing one."""
        if known := self.leaders.get(leader):
            return known
        stat = proc.read_stat(leader)
        return self.take_over("", Identity(leader, stat.start_time)) if stat else None

    async def find(self, *, thorough: bool) -> Findings:  # noqa: ARG002 - there is one way
        """Return the living processes that daemons with this owner have started themselves."""
        return await find_marked(self._owner, self.guard, self._reader)

    async def usage(self, leaders: Collection[int]) -> Mapping[int, Usage]:
        """Return what the leaders use, with their sessions and descendants that have living parents."""
        return await usage_of(await trees(leaders), self._reader)

    def drain(self) -> None:
        """Wait no more for what need not belong to an instance: none will be created in its place."""
        self._own.drain()
        self._earlier.drain()

    async def end_strays(self) -> None:
        """Kill what instances have left to this process, once none is left that it could belong to."""
        if not self._reaper.alone:
            return
        told: set[int] = set()
        try:
            for _ in range(_MOST_GENERATIONS):
                await self._reaper.reap()
                strays = set(self._reaper.inherited())
                if fresh := strays - told:
                    log.warning("ending what instances have left behind", pids=sorted(fresh))
                told |= strays
                for pid in strays:
                    os.kill(pid, signal.SIGKILL)  # a child: its PID is its own until it is reaped here
                if not strays:
                    return
                await asyncio.sleep(_STRAY_DELAY)
        except proc.UnreadableError as error:
            log.warning("what instances have left behind is not known", reason=str(error))

    def close(self) -> None:
        """Look for nothing any more."""
        if self._sighting is not None:
            self._sighting.cancel()
        self._own.close()
        self._earlier.close()

    def sight(self, cell: "SessionCell", pidfd: int) -> None:
        """Look from now on whether the leader of a cell lives, which it does now."""
        self.sighted[cell] = pidfd
        if self._sighting is None:
            self._sight()
        else:
            cell.sighted()

    def _sight(self) -> None:
        """Note which leaders of earlier daemons live: the numbers of their sessions were their own so far."""
        self._sighting = asyncio.get_running_loop().call_later(_SIGHTING_INTERVAL, self._sight)
        poll = select.poll()
        for pidfd in self.sighted.values():
            poll.register(pidfd, select.POLLIN)
        ended = {descriptor for descriptor, _ in poll.poll(0)}
        for cell, pidfd in self.sighted.items():
            if pidfd not in ended:
                cell.sighted()


class SessionCell:
    """Implements `app.containment.Cell`."""

    entrance = None

    def __init__(
        self,
        containment: SessionContainment,
        descendants: DescendantReaper,
        uuid: str,
        leader: Leader | None = None,
    ) -> None:
        """`leader` is known beforehand if it was started by an earlier daemon; it may have ended."""
        self._containment = containment
        self._descendants = descendants
        self._uuid = uuid
        self._leader = leader

    def led_by(self, identity: Identity, pidfd: int) -> None:
        """Get to know the leader."""
        if self._leader is None:
            self._leader = Leader(identity, self._uuid)
        else:
            self._containment.sight(self, pidfd)
        self._containment.leaders[identity.pid] = self
        self._descendants.register(self._leader)

    def sighted(self) -> None:
        """Note that the leader lives."""
        if self._leader is not None:
            self._leader.alive_until = boot_ticks()

    def prepare_end(self) -> None:
        """See what the leader has started: it is known by its parents while they live."""
        self._descendants.note_soon()

    def members(self) -> Iterator[int]:
        """Yield the leader, its descendants that have living parents, and its session."""
        if self._leader is not None:
            yield from proc.tree(self._leader.identity.pid)

    def excludes(self, pid: int) -> bool:
        """Return whether a process certainly belongs to no instance, or is one's leader itself.

        What the daemon or its guard has inherited was left behind by an instance, perhaps by this one.
        """
        heirs, leaders = {os.getpid(), self._containment.guard}, self._containment.leaders
        for child, parent in itertools.pairwise(_ancestry(pid)):
            if parent in heirs:
                return child in heirs or child in leaders
        return True

    def discard(self) -> None:
        """Do nothing: there is nothing to remove."""

    async def end(self) -> str | None:
        """Kill the descendants of the leader, which has ended, until none is left or until a timeout."""
        return None if self._leader is None else await self._descendants.end(self._leader)

    def killed_for_memory(self) -> str:
        """Return nothing: it cannot be told who has killed a member."""
        return ""

    def close(self) -> None:
        """Forget the leader."""
        self._containment.sighted.pop(self, None)
        if self._leader is not None and self._containment.leaders.get(self._leader.identity.pid) is self:
            del self._containment.leaders[self._leader.identity.pid]


def _ancestry(pid: int) -> Iterable[int]:
    """Yield a process, its parent, and so on."""
    while pid:
        yield pid
        stat = proc.read_stat(pid)
        pid = stat.parent if stat else 0
