"""Strays: processes that this one inherited from those it started, because their parents have ended.

A stray is a child of this process that only this process reaps, so while it is listed its PID is its own and
plain kill(2) cannot hit another.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

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
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Strays:
    """Finds the strays of a process that has ended, and kills them.

    However many processes end at once, there is one look at the list per turn of the event loop.
    """

    def __init__(self, reap: Callable[[], None], started: Collection[int]) -> None:
        self._reap = reap
        """Clears away what has ended."""
        self._started = started
        """PIDs of the processes that were started by this one and are no strays."""
        self._hunts: list[_Hunt] = []
        self._owners: dict[int, str] = {}
        """By PID, the UUID that a stray has carried: it holds, whatever becomes of its environment."""
        self._next: asyncio.Handle | None = None

    async def end(self, leader: int, uuid: str, within: float) -> str | None:
        """Kill the strays of a process that has ended until none is left or the time is over.

        A killed process hands its own children to this one before it can be reaped, so looking again after
        each end misses none, however fast they fork.

        Args:
            leader: PID of the process, which is the session of all that did not change it.
            uuid: that it was given in its environment, and so all its descendants that did not change it.
            within: seconds.

        Returns:
            None when nothing is left, else what remains, in words.
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

    def _look(self) -> None:
        """Kill every stray that is hunted; a hunt that finds none is over."""
        self._reap()  # what is still listed after it has not ended
        self._next = None
        hunts = {hunt.uuid: hunt for hunt in self._hunts if not hunt.done.done()}
        sessions = {hunt.leader: hunt.uuid for hunt in hunts.values()}
        for hunt in hunts.values():
            hunt.found = []
        unsettled = False
        for pid in proc.own_children():
            if pid in self._started:
                continue
            owner, settled = self._owner_of(pid, sessions)
            unsettled = unsettled or not settled
            if owner in hunts:
                hunts[owner].found.append(pid)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        if unsettled:
            self._next = asyncio.get_running_loop().call_later(_UNSETTLED_DELAY, self._look)
            return
        for hunt in hunts.values():
            if not hunt.found:
                hunt.done.set_result(None)

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
        if owner:
            self._owners[pid] = owner
        return owner, bool(owner) or marks.settled
