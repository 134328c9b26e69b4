"""A census of processes: which of them belong to which instance, as far as that can be told."""

import asyncio
import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from instance_manager.adapters.process.session.leaders import Leader
from instance_manager.adapters.process.slices import Slices
from instance_manager.core.attribution import (
    Attribution,
    Certainty,
    Inherited,
    Traces,
    Unread,
    attribute,
)
from instance_manager.platform import proc
from instance_manager.platform.proc import Key, exists
from instance_manager.platform.reading import BoundedReader

log = structlog.get_logger(__name__)

PATIENCE = 0.05
"""Seconds that one candidate has to become readable, in the middle of an execve or an exit."""
HOLD = 60.0
_NOT_READ = Unread("its environment was not read")


@dataclass(slots=True)
class Found:
    """The result of a census."""

    members: dict[str, set[Key]] = field(default_factory=dict)
    """Living descendants by the UUID of their instance."""
    doubts: dict[str, dict[int, str]] = field(default_factory=dict)
    """By UUID and PID: why it is not certain whether a process belongs to it."""
    unsettled: bool = False
    """Whether candidates will show more in a moment, and there is patience for them."""
    moving: bool = False
    """Whether candidates have ended meanwhile, which may have left children that were not listed yet."""


class _Heritage:
    """What is known of processes whose parent has ended, by who has inherited them."""

    def __init__(
        self, parent: int | None, leaders: Iterable[Leader], wanted: Collection[str], *, alone: bool
    ) -> None:
        """Sort the leaders, of which those with the UUIDs in `wanted` have ended."""
        self.parent = parent
        """PID of who inherits what instances leave; None if that is not known."""
        self.inherited = Inherited.SURELY if alone else Inherited.PERHAPS
        self._leaders = sorted(leaders, key=lambda leader: leader.identity.start_time)
        self._starts = [leader.identity.start_time for leader in self._leaders]
        self._living = [each.identity.start_time for each in self._leaders if each.uuid not in wanted]

    def possible(self, start: int) -> str | None:
        """Return which instance may have left a process that was started then, if it is just one.

        Those that have ended are as good as one: it is to be ended, whichever of them it was.
        """
        older, living = bisect_right(self._starts, start), bisect_right(self._living, start)
        return self._leaders[0].uuid if older == 1 or (older and not living) else None


class Census:
    """Knows the leaders of all instances, and what was attributed to each before."""

    def __init__(
        self, reader: BoundedReader, parent: Callable[[], int | None], alone: Callable[[], bool]
    ) -> None:
        """Know nothing yet.

        Args:
            reader: reads the environments of candidates.
            parent: returns the PID of the process that inherits descendants, None if that is not known.
            alone: returns whether nobody but instances can leave anything to `parent`.
        """
        self._reader = reader
        self._parent = parent
        self._alone = alone
        self.hold = HOLD
        """Seconds for which a process holds up a delete only because it can be no other instance's."""
        self._leaders: dict[str, Leader] = {}
        """By UUID."""
        self._owners: dict[Key, str] = {}
        """By process: the UUID of its instance. It stays valid whatever the process does."""
        self._environments: dict[Key, str | None] = {}
        """By process: the UUID in its environment."""
        self._first_seen: dict[Key, float] = {}
        """By process that is in the middle of something: since when, by the clock of the event loop."""
        self._suspected: dict[Key, float] = {}
        """By process that one instance may have left behind: since when that is so."""
        self._told: set[Key] = set()

    def add(self, leader: Leader) -> None:
        """Get to know the leader of an instance."""
        self._leaders[leader.uuid] = leader
        self._owners[leader.key] = leader.uuid

    def remove(self, leader: Leader) -> None:
        """Forget an instance of which nothing is left."""
        self._leaders.pop(leader.uuid, None)
        self._owners = {key: uuid for key, uuid in self._owners.items() if uuid != leader.uuid}

    async def note(self) -> None:
        """Attribute the descendants of living processes by parent and session, without reading memory."""
        try:
            slices = Slices()
            stats = await self._stats(proc.all_processes(), slices)
            await self._attribute(stats, {}, slices)
        except proc.UnreadableError as error:
            log.debug("descendants of living processes not noted", reason=str(error))

    async def take(self, pids: Iterable[int] | None, leaders: Collection[Leader]) -> Found:
        """Find the living descendants of leaders that have ended.

        Args:
            pids: candidates; None for all processes.
            leaders: those that are looked for.

        Raises:
            proc.UnreadableError: if processes cannot be listed, or not be looked at.
        """
        slices, found = Slices(), Found()
        stats = await self._stats(proc.all_processes() if pids is None else pids, slices, found)
        if pids is None:
            self._forget_all_but({(pid, stat.start_time) for pid, stat in stats.items()})
        # Nobody is older than the process that it descends from.
        oldest = min(leader.identity.start_time for leader in leaders)
        stats = {pid: stat for pid, stat in stats.items() if stat.start_time >= oldest}
        unread = await self._read_environments(stats)
        # What will show in a moment what it carries is not attributed by where it is.
        waiting = {key for key, error in unread.items() if error.passing and self._is_new(key)}
        found.unsettled = bool(waiting)
        stats = {pid: stat for pid, stat in stats.items() if (pid, stat.start_time) not in waiting}
        reasons = {key: Unread(str(error)) for key, error in unread.items()}
        wanted, heads = {leader.uuid for leader in leaders}, self._heads()
        left = await self._attribute(stats, {**self._environments, **reasons}, slices, wanted)
        for key, attribution in left.items():
            self._doubt(key, attribution, stats[key[0]], found)
        for pid, stat in stats.items():
            key = pid, stat.start_time
            owner = self._owners.get(key)
            if owner in wanted and key not in heads:
                found.members.setdefault(owner, set()).add(key)
        return found

    async def _stats(
        self, pids: Iterable[int], slices: Slices, found: Found | None = None
    ) -> dict[int, proc.Stat]:
        """Return the stat of each process that lives and is not the kernel's, oldest first."""
        stats = {}
        for pid in pids:
            stat = proc.read_stat(pid)
            if stat is not None and not stat.ended:
                if not stat.kernel_thread and pid != os.getpid():
                    stats[pid] = stat
            elif found is not None and (stat is None or self._is_new((pid, stat.start_time))):
                found.moving = True
            await slices.pause()
        return dict(sorted(stats.items(), key=lambda item: item[1].start_time))

    async def _read_environments(self, stats: Mapping[int, proc.Stat]) -> dict[Key, proc.UnreadableError]:
        """Read the environments that are not known yet; return why that failed."""
        starts = {pid: stat.start_time for pid, stat in stats.items()}
        known = self._owners.keys() | self._environments.keys()
        read = await self._reader.read(
            [pid for pid, start in starts.items() if (pid, start) not in known],
            lambda pid: proc.read_uuid(pid, starts[pid]),
        )
        unread = {}
        for pid, value in read.items():
            if isinstance(value, proc.UnreadableError):
                unread[pid, starts[pid]] = value
            else:
                self._environments[pid, starts[pid]] = value
        return unread

    async def _attribute(
        self,
        stats: Mapping[int, proc.Stat],
        environments: Mapping[Key, str | Unread | None],
        slices: Slices,
        wanted: Collection[str] = (),
    ) -> dict[Key, Attribution]:
        """Attribute processes, parents before children; return what is not certain.

        Args:
            stats: the processes, oldest first.
            environments: the UUIDs in their environments.
            slices: of this work.
            wanted: UUIDs of instances that have ended, and whose descendants are looked for.
        """
        sessions = {leader.identity.pid: leader for leader in self._leaders.values()}
        heads = self._heads()
        heirs = None
        if wanted:
            heirs = _Heritage(self._parent(), self._leaders.values(), wanted, alone=self._alone())
        changed, left = True, dict.fromkeys((pid, stat.start_time) for pid, stat in stats.items())
        uncertain: dict[Key, Attribution] = {}
        while changed:
            changed = False
            for key in list(left):
                await slices.pause()
                stat, leader = stats[key[0]], sessions.get(stats[key[0]].session)
                traces = self._traces(key, stat, leader, stats, environments)
                if heirs is not None and stat.parent == heirs.parent and key not in heads:
                    possible = heirs.possible(stat.start_time)
                    traces = replace(traces, inherited=heirs.inherited, possible=possible)
                result = attribute(traces)
                if result.certainty is not Certainty.CERTAIN:
                    uncertain[key] = result
                    continue
                if result.owner is None:
                    continue
                del left[key]
                uncertain.pop(key, None)
                if result.owner in self._leaders:
                    changed = True
                    self._owners[key] = result.owner
                    if leader is not None and leader.uuid == result.owner:
                        leader.holders.add(key)
        return uncertain

    def _traces(
        self,
        key: Key,
        stat: proc.Stat,
        leader: Leader | None,
        stats: Mapping[int, proc.Stat],
        environments: Mapping[Key, str | Unread | None],
    ) -> Traces:
        """Return the evidence about a process; what it rests on is looked at after its stat was read."""
        earlier = self._owners.get(key)
        if earlier is not None:
            return Traces(None, earlier=earlier)
        held = leader is not None and leader.holds_session_of(stat)
        if leader is not None and not held and leader.is_succeeded():
            leader = None
        parent = stats.get(stat.parent)
        owner = None
        if parent is not None and parent.start_time <= stat.start_time:
            parent_key = stat.parent, parent.start_time
            owner = self._owners.get(parent_key)
            owner = owner if owner is not None and exists(parent_key) else None
        return Traces(
            environments.get(key, _NOT_READ),
            session=leader.uuid if leader else None,
            session_held=held,
            parent=owner,
        )

    def _doubt(self, key: Key, attribution: Attribution, stat: proc.Stat, found: Found) -> None:
        """Say of a candidate that it is not certain whose it is."""
        owner = attribution.owner
        if owner is not None and self._is_fresh(self._suspected, key, self.hold):
            found.doubts.setdefault(owner, {})[key[0]] = attribution.reason
        elif (owner is not None or stat.parent == self._parent()) and key not in self._told:
            self._told.add(key)
            log.warning(
                "cannot tell to which instance a process belongs; it may be what an ended one left behind. "
                "Deletes do not wait for it; look at it, and end it by hand if nobody needs it",
                pid=key[0],
                command=stat.command,
                state=stat.state,
                reason=attribution.reason,
            )

    def _is_new(self, key: Key) -> bool:
        """Return whether there is patience with a process that is in the middle of something."""
        return self._is_fresh(self._first_seen, key, PATIENCE)

    @staticmethod
    def _is_fresh(since: dict[Key, float], key: Key, seconds: float) -> bool:
        """Return whether it has been so for less than some seconds; `since` remembers when it began."""
        now = asyncio.get_running_loop().time()
        return now - since.setdefault(key, now) < seconds

    def _heads(self) -> set[Key]:
        return {leader.key for leader in self._leaders.values()}

    def _forget_all_but(self, living: set[Key]) -> None:
        living |= self._heads()
        self._owners = {key: uuid for key, uuid in self._owners.items() if key in living}
        self._environments = {key: each for key, each in self._environments.items() if key in living}
        self._first_seen = {key: since for key, since in self._first_seen.items() if key in living}
        self._suspected = {key: since for key, since in self._suspected.items() if key in living}
        self._told &= living
