"""Finding and killing the descendants of processes that have ended, whatever they did to get away."""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import structlog

from instance_manager.adapters.process import proc
from instance_manager.core.process import Identity

log = structlog.get_logger(__name__)

TIMEOUT = 5.0
"""Seconds that killed descendants have to end before they are reported as remaining."""
_UNSETTLED_DELAY = 0.002
"""Seconds until another look if a process was in the middle of an execve or an exit."""


class _Search:
    """The search for all descendants of one process."""

    def __init__(self, leader: Identity, uuid: str, *, by_session: bool) -> None:
        self.leader = leader
        self.uuid = uuid
        self.by_session = by_session
        self.found: list[int] = []
        """PIDs of those that were alive at the last look."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def has_session(self) -> bool:
        """Return whether the session of the leader's PID is still its own."""
        stat = proc.read_stat(self.leader.pid)
        return stat is None or stat.start_time == self.leader.start_time


class DescendantReaper(ABC):
    """Kills the descendants of processes that have ended, until none is left.

    However many processes end at once, the candidates are listed once per round of the event loop.
    """

    _is_parent: bool
    """Whether candidates are children of this process, which alone reaps them. A child that is just ending
    cannot be attributed, and its own children are not in the list yet; somebody else's zombie may stay."""

    def __init__(self, candidates: Callable[[], Iterable[int]]) -> None:
        """`candidates` returns the PIDs of all processes that may be descendants."""
        self._candidates = candidates
        self._searches: list[_Search] = []
        self._next: asyncio.Handle | None = None
        self._pidfds: dict[int, int] = {}
        """By PID of killed processes whose end is waited for."""

    @abstractmethod
    def _kill(self, pid: int, uuid: str, sessions: Mapping[int, _Search], /) -> bool:
        """Kill a descendant and look again when it has ended; False if that is uncertain."""

    async def end(self, leader: Identity, uuid: str, *, by_session: bool = True) -> str | None:
        """Kill the descendants of a process that has ended, until none is left or until the timeout.

        A killed process hands its children to its reaper before it can be reaped, so looking again after each
        end finds all of them, however fast they fork.

        Args:
            leader: the process; its PID is the session of descendants that have not changed it.
            uuid: UUID in its environment, and in that of descendants that have not changed it.
            by_session: whether descendants are attributed by session too. Only if the process has ended just
                now: when nobody is left in a session, its number may become another's.

        Returns:
            None if nothing is left, else what remains, in words.

        Raises:
            OSError: if processes cannot be listed.
        """
        search = _Search(leader, uuid, by_session=by_session)
        self._searches.append(search)
        self._look_soon()
        try:
            async with asyncio.timeout(TIMEOUT):
                await search.done
        except TimeoutError:
            log.debug("descendants remain", uuid=uuid, pids=search.found)
            return "; ".join(map(proc.describe, search.found)) or None
        finally:
            self._searches.remove(search)
            self._stop_waiting(search.found)
        return None

    def close(self) -> None:
        """Stop looking, and stop waiting for ends."""
        if self._next is not None:
            self._next.cancel()
        self._stop_waiting(tuple(self._pidfds))

    def _stop_waiting(self, pids: Iterable[int]) -> None:
        for pidfd in (self._pidfds.pop(pid) for pid in pids if pid in self._pidfds):
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _look_soon(self) -> None:
        if self._next is None and self._searches:
            self._next = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Look for the descendants of all leaders; if that fails, every search ends with the error."""
        self._next = None
        searches = {search.uuid: search for search in self._searches if not search.done.done()}
        try:
            if searches:
                self._kill_all(searches)
        except OSError as error:
            for search in searches.values():
                search.done.set_exception(error)

    def _kill_all(self, searches: Mapping[str, _Search]) -> None:
        """Kill the descendants of all leaders; a search that finds none is over."""
        candidates = self._candidates()
        sessions = {search.leader.pid: search for search in searches.values() if search.by_session}
        for search in searches.values():
            search.found = []
        settled = True
        for pid in candidates:
            owner, certain = self._owner_of(pid, sessions)
            if owner in searches:
                searches[owner].found.append(pid)
                certain = self._kill(pid, owner, sessions)
            settled = settled and certain
        for search in searches.values():
            if search.found:
                log.debug("descendants killed", uuid=search.uuid, pids=search.found)
            elif settled:
                log.debug("no descendants left", uuid=search.uuid)
                search.done.set_result(None)
        if not settled:
            self._next = asyncio.get_running_loop().call_later(_UNSETTLED_DELAY, self._look)

    def _owner_of(self, pid: int, sessions: Mapping[int, _Search]) -> tuple[str, bool]:
        """Return the UUID that a process belongs to, empty if to none, and whether that is certain."""
        seen = proc.read_provenance(pid)
        if seen is None or (seen.ended and not self._is_parent):
            return "", not self._is_parent
        owner = seen.uuid or ""
        if not owner and (seen.settled or seen.ended or not self._is_parent):
            search = sessions.get(seen.session)
            owner = search.uuid if search and search.has_session() else ""
        # A kernel thread shows no environment either, and is in no session.
        return owner, bool(owner) or seen.settled or not seen.session


class OwnDescendantReaper(DescendantReaper):
    """For children of this process: it has inherited their descendants, and only it reaps them.

    So while one is listed, its PID cannot be reused, and kill(2) cannot hit another process.
    """

    _is_parent = True

    def __init__(self, reap: Callable[[], None], started: Collection[int]) -> None:
        """Look for nothing yet.

        Args:
            reap: reaps all children that have ended.
            started: PIDs of the processes started by this one, which are nobody's descendants.
        """
        super().__init__(self._children)
        self._reap = reap
        self._started = started
        self._owners: dict[int, str] = {}
        """UUID by PID of those that were attributed; it stays valid if the environment changes."""

    def reaped(self, pid: int) -> None:
        """Note that a descendant was reaped."""
        self._owners.pop(pid, None)
        self._look_soon()

    def _children(self) -> list[int]:
        self._reap()  # whatever is still listed after this has not ended
        return [pid for pid in proc.children_of(os.getpid()) if pid not in self._started]

    def _owner_of(self, pid: int, sessions: Mapping[int, _Search]) -> tuple[str, bool]:
        if owner := self._owners.get(pid):
            return owner, True
        owner, certain = super()._owner_of(pid, sessions)
        if owner:
            self._owners[pid] = owner
        return owner, certain

    def _kill(self, pid: int, _uuid: str, _sessions: Mapping[int, _Search], /) -> bool:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        return True


class AdoptedDescendantReaper(DescendantReaper):
    """For adopted processes: somebody else reaps their descendants, so a PID may be reused at any time."""

    _is_parent = False

    def _kill(self, pid: int, uuid: str, sessions: Mapping[int, _Search], /) -> bool:
        if pid in self._pidfds:
            return True
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        # Attributed again: from now on the PID cannot become another's.
        if self._owner_of(pid, sessions)[0] != uuid:
            os.close(pidfd)
            return False
        self._pidfds[pid] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, pid)
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True

    def _ended(self, pid: int) -> None:
        self._stop_waiting([pid])
        self._look_soon()
