"""Ending the descendants of processes that have ended, whatever they did to get away.

All searches share one task. A round of it takes a census of the candidates and attributes each of them. The
members of a search are stopped until a round finds no new one, so that no forking gets ahead of it, and then
killed. A search is over when a round finds none.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress

import structlog

from instance_manager.adapters.process import handles
from instance_manager.adapters.process.session.census import Census, Found
from instance_manager.adapters.process.session.leaders import Leader
from instance_manager.adapters.process.slices import Slices
from instance_manager.platform import proc
from instance_manager.platform.proc import Key, exists
from instance_manager.platform.reading import BoundedReader

log = structlog.get_logger(__name__)

TIMEOUT = 5.0
"""Seconds that killed descendants have to end before they are reported as remaining."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.001, 0.05
"""Seconds between rounds while nothing changes."""
_MOVING_PATIENCE = 0.3
"""Seconds in which a search that has found none looks again because candidates came and went meanwhile."""
_MOST_LOGGED = 20
_NOTE_INTERVAL = 0.2
"""Seconds between looks at the descendants of living processes, at least."""


class _Search:
    """The search for all descendants of one process."""

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self.members: set[Key] = set()
        """Those that have not ended at the last look."""
        self.struck: set[Key] = set()
        """Those that were sent a signal."""
        self.stopping = False
        """Whether members were stopped and are not killed yet."""
        self.changed_at = asyncio.get_running_loop().time()
        """When a member was signalled last, or it began; by the clock of the event loop."""
        self.shrunk = False
        """Whether members have ended since the last look."""
        self.doubts: dict[int, str] = {}
        """Why it is not certain, by PID, whether a process is a member."""
        self.trouble = ""
        """Why the last look failed."""
        self.done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    @property
    def due(self) -> bool:
        """Whether there is nothing to wait for before the next look."""
        return self.shrunk or self.stopping or not self.members or not self.members <= self.struck

    @property
    def remains(self) -> str | None:
        """What is left, in words."""
        left = [proc.describe(pid) for pid, _ in self.members]
        left += [f"pid {pid} may belong to it: {why}" for pid, why in self.doubts.items()]
        if not left and self.trouble:
            left = [f"looking for descendants failed: {self.trouble}"]
        return "; ".join(left) or None


class DescendantReaper:
    """Kills the descendants of processes that have ended, until none is left."""

    def __init__(
        self,
        reader: BoundedReader,
        *,
        near: Callable[[], Iterable[int]] | None = None,
        parent: Callable[[], int | None] = lambda: None,
        reap: Callable[[], Awaitable[None]] | None = None,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Look for nothing yet.

        Args:
            reader: reads the environments of candidates.
            near: returns the PIDs among which the topmost descendants are, if that is known.
            parent: PID of the process that inherits descendants; None if that is not known.
            reap: reaps the descendants that have ended, if that is up to this process.
            alone: returns whether nobody but instances leaves processes to their parent.
        """
        self._near = near
        self._reap = reap or _nothing
        self._census = Census(reader, parent, alone)
        self._searches: list[_Search] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._noting: asyncio.Task[None] | None = None

    def register(self, leader: Leader) -> None:
        """Get to know the process that an instance began with."""
        self._census.add(leader)

    def note_soon(self) -> None:
        """Attribute what living processes have started, by its parents, before these end."""
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._note())

    async def end(self, leader: Leader) -> str | None:
        """Kill the descendants of a process that has ended, until none is left or until the timeout.

        A killed process hands its children to its reaper before it can be reaped, so looking again after each
        end finds all of them, however fast they fork.

        Returns:
            None if nothing is left, else what remains, in words.
        """
        self.register(leader)
        search = _Search(leader)
        self._searches.append(search)
        self.look_soon()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(TIMEOUT):
                remains = await search.done
        except TimeoutError:
            # Whatever was only stopped so far must not stay so.
            with suppress(proc.UnreadableError):
                await self._strike_all(search, search.members, Slices(), kill=True)
            remains = search.remains or "looking for descendants takes too long"
        finally:
            self._searches.remove(search)
        if remains is None:
            log.debug("no descendants left", uuid=leader.uuid)
            self._census.remove(leader)
        else:
            log.debug("descendants remain", uuid=leader.uuid, reason=remains)
        return remains

    def drain(self) -> None:
        """Wait no more for what need not belong to an instance: none will be created in its place."""
        self._census.hold = 0.0

    def look_soon(self) -> None:
        """Note that something has changed, such as the end of a descendant."""
        self._wake.set()

    def close(self) -> None:
        """Stop looking."""
        for task in (self._task, self._noting):
            if task is not None:
                task.cancel()

    async def _note(self) -> None:
        await self._census.note()
        await asyncio.sleep(_NOTE_INTERVAL)

    async def _run(self) -> None:
        """Make rounds as long as there are searches."""
        wait = _SHORTEST_WAIT
        while searches := [search for search in self._searches if not search.done.done()]:
            self._wake.clear()
            try:
                changed = await self._round(searches)
            except Exception as error:
                if not isinstance(error, proc.UnreadableError):
                    log.exception("search for descendants failed")
                changed = False
                for search in searches:
                    search.trouble = str(error)
            wait = _SHORTEST_WAIT if changed else min(wait * 2, _LONGEST_WAIT)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _round(self, searches: Collection[_Search]) -> bool:
        """Look once for all searches that have nothing to wait for; return whether anything has changed."""
        await self._reap()
        slices = Slices()
        due, changed = [], False
        for search in searches:
            if await self._forget_ended(search, slices) and not search.stopping:
                search.shrunk = changed = True
            elif (
                search.shrunk or search.stopping or not search.members <= search.struck or not search.members
            ):
                due.append(search)
        if not due:
            return changed
        near = None if self._near is None or any(search.members for search in due) else self._near()
        found = await self._census.take(near, [search.leader for search in due])
        for search in due:
            search.trouble, search.shrunk = "", False
            search.doubts = found.doubts.get(search.leader.uuid, {})
            changed = await self._act(search, found, slices) or changed
        return changed

    async def _act(self, search: _Search, found: Found, slices: Slices) -> bool:
        """Go on with a search after a census; return whether anything has changed."""
        living = found.members.get(search.leader.uuid, set())
        fresh = living - search.struck
        search.members |= living
        if search.members:
            search.stopping = True
            await self._strike_all(search, fresh or search.members, slices, kill=not fresh)
            search.stopping = bool(fresh)
            return True
        waited = asyncio.get_running_loop().time() - search.changed_at
        settled = not found.unsettled and not (found.moving and waited < _MOVING_PATIENCE)
        if settled and not search.done.done():
            search.done.set_result(search.remains)
        return False

    async def _strike_all(self, search: _Search, keys: Iterable[Key], slices: Slices, *, kill: bool) -> None:
        number = signal.SIGKILL if kill else signal.SIGSTOP
        keys = tuple(keys)
        pids = [pid for pid, _ in keys[:_MOST_LOGGED]]
        event = "descendants killed" if kill else "descendants stopped"
        log.debug(event, uuid=search.leader.uuid, pids=pids, count=len(keys))
        for key in keys:
            if _strike(key, number):
                search.struck.add(key)
            else:
                search.members.discard(key)
            await slices.pause()
        search.changed_at = asyncio.get_running_loop().time()

    async def _forget_ended(self, search: _Search, slices: Slices) -> bool:
        """Forget the members that have ended; return whether there are any."""
        before = len(search.members)
        for key in tuple(search.members):
            stat = proc.read_stat(key[0])
            if stat is None or stat.start_time != key[1] or stat.ended:
                search.members.discard(key)
            await slices.pause()
        return len(search.members) < before


async def _nothing() -> None:
    """For descendants that others reap."""


def _strike(key: Key, number: signal.Signals) -> bool:
    """Signal a process; False if it is gone.

    Raises:
        proc.UnreadableError: if there is no descriptor for it.
    """
    pidfd = handles.open_pidfd(key[0])
    if pidfd is None:
        return False
    try:
        # Looked at after the pidfd was opened: from now on the PID cannot become another's.
        if not exists(key):
            return False
        handles.send(pidfd, number)
    finally:
        os.close(pidfd)
    return True
