"""Strays: processes whose parents have ended, found by what they carry of the process they stem from."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from instance_manager.adapters.process import proc

_UNSETTLED_DELAY = 0.002
"""Seconds until another look if a process was in the middle of an execve, or ended and left others."""


class _Hunt:
    """The wish to end all strays of one process."""

    def __init__(self, leader: int, uuid: str) -> None:
        self.leader = leader
        self.uuid = uuid
        self.found: list[int] = []
        """Those that had not ended at the last look."""
        self.calm = 0
        """How many looks in a row have found none."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Strays:
    """Finds the strays of a process that has ended, and kills them.

    However many processes end at once, there is one look at the list per turn of the event loop.
    """

    calm_looks = 1
    """How many looks in a row have to find nothing."""
    pause: float | None = None
    """Seconds between looks, None: `reaped` tells when it is time for the next one."""

    def __init__(self) -> None:
        self._hunts: list[_Hunt] = []
        self._owners: dict[int, str] = {}
        """By PID, the UUID that a stray has carried: it holds, whatever becomes of its environment."""
        self._next: asyncio.Handle | None = None

    def pids(self) -> Iterable[int]:
        """Return the processes among which the strays are, those that have ended left out.

        Raises:
            OSError: if that cannot be found out.
        """
        raise NotImplementedError

    def kill(self, pid: int, is_the_one: Callable[[], bool]) -> None:
        """Kill a process that was just returned by `pids`, if it still is the one."""
        raise NotImplementedError

    async def end(self, leader: int, uuid: str, within: float) -> str | None:
        """Kill the strays of a process that has ended until none is left or the time is over.

        A killed process hands its own children on before it can be reaped, so looking again after each end
        misses none, however fast they fork.

        Args:
            leader: PID of the process, which is the session of all that did not change it.
            uuid: that it was given in its environment, and so all its descendants that did not change it.
            within: seconds.

        Returns:
            None when nothing is left, else what remains, in words.

        Raises:
            OSError: if it cannot be found out what is left.
        """
        hunt = _Hunt(leader, uuid)
        self._hunts.append(hunt)
        self._look_soon()
        try:
            async with asyncio.timeout(within):
                await hunt.done
        except TimeoutError:
            return "; ".join(map(proc.describe, hunt.found)) or None
        finally:
            self._hunts.remove(hunt)
        return None

    def reaped(self, pid: int) -> None:
        """Take note that a stray has ended."""
        self._owners.pop(pid, None)
        self._look_soon()

    def close(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()

    def _look_soon(self) -> None:
        if self._next is None and self._hunts:
            self._next = asyncio.get_running_loop().call_soon(self._look)

    def _look_later(self, delay: float) -> None:
        self._next = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        """Kill every stray that is hunted; a hunt that finds none is over."""
        hunts = {hunt.uuid: hunt for hunt in self._hunts if not hunt.done.done()}
        if not hunts:
            self._next = None
            return
        try:
            settled = self._search(hunts)
        except OSError as error:
            for hunt in hunts.values():
                hunt.done.set_exception(error)
            settled = True
        self._next = None
        for hunt in hunts.values():
            hunt.calm = hunt.calm + 1 if settled and not hunt.found else 0
            if hunt.calm >= self.calm_looks and not hunt.done.done():
                hunt.done.set_result(None)
        if not settled:
            self._look_later(_UNSETTLED_DELAY)
        elif self.pause is not None and not all(hunt.done.done() for hunt in hunts.values()):
            self._look_later(self.pause)

    def _search(self, hunts: Mapping[str, _Hunt]) -> bool:
        """Find and kill the strays that are hunted; return whether it is known of each whose it is."""
        sessions = {hunt.leader: hunt.uuid for hunt in hunts.values()}
        for hunt in hunts.values():
            hunt.found = []
        all_settled = True
        for pid in self.pids():
            owner, settled = self._owner_of(pid, sessions)
            all_settled = all_settled and settled
            if owner in hunts:
                hunts[owner].found.append(pid)
                self.kill(pid, partial(self._is_of, owner, pid, sessions))
        return all_settled

    def _is_of(self, owner: str, pid: int, sessions: Mapping[int, str]) -> bool:
        return self._owner_of(pid, sessions)[0] == owner

    def _owner_of(self, pid: int, sessions: Mapping[int, str]) -> tuple[str, bool]:
        """Return the UUID that a stray belongs to, empty if to none, and whether that is settled.

        One that ends this moment shows nothing any more, and what it leaves came too late for the list.
        """
        owner = self._owners.get(pid, "")
        if owner:
            return owner, True
        marks = proc.read_marks(pid)
        if marks is None:
            return "", False
        owner = marks.uuid or ""
        if not owner and (marks.settled or marks.ended):
            owner = sessions.get(marks.session, "")
        if owner and self.pause is None:
            self._owners[pid] = owner
        return owner, bool(owner) or marks.settled


class OwnStrays(Strays):
    """Those that this process has inherited, as a subreaper.

    Such a stray is a child of this process that only this process reaps, so while it is listed its PID is
    its own and plain kill(2) cannot hit another.
    """

    def __init__(self, reap: Callable[[], None], started: Iterable[int]) -> None:
        super().__init__()
        self._reap = reap
        """Clears away what has ended."""
        self._started = started
        """PIDs of the processes that were started by this one and are no strays."""

    def pids(self) -> Iterable[int]:
        """Return the strays."""
        self._reap()
        return set(proc.own_children()).difference(self._started)

    def kill(self, pid: int, is_the_one: Callable[[], bool]) -> None:  # noqa: ARG002 - it is
        """Kill a stray."""
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
