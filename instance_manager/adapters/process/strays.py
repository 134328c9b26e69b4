"""Strays: descendants of started processes that this one has inherited because their parents have ended.

A stray is a child of this process, and only this process reaps it. So while it is listed, its PID cannot be
reused, and kill(2) cannot hit another process.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from instance_manager.adapters.process import proc

_UNSETTLED_DELAY = 0.002
"""Seconds until another look if a process was in the middle of an execve or an exit."""


class _Hunt:
    """The search for all strays of one process."""

    def __init__(self, leader: int, uuid: str) -> None:
        self.leader = leader
        self.uuid = uuid
        self.found: list[int] = []
        """PIDs of those that were alive at the last look."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Strays:
    """Finds the strays of a process that has ended, and kills them.

    However many processes end at once, the list is read once per round of the event loop.
    """

    def __init__(self, reap: Callable[[], None], started: Collection[int]) -> None:
        self._reap = reap
        """Reaps all children that have ended."""
        self._started = started
        """PIDs of the processes started by this one, which are not strays."""
        self._hunts: list[_Hunt] = []
        self._owners: dict[int, str] = {}
        """UUID by PID of strays that have been identified; it stays valid if the environment changes."""
        self._next: asyncio.Handle | None = None

    async def end(self, leader: int, uuid: str, within: float) -> str | None:
        """Kill the strays of a process that has ended, until none is left or until the timeout.

        A killed process hands its children to this one before it can be reaped, so looking again after each
        end finds all of them, however fast they fork.

        Args:
            leader: PID of the process, and session ID of descendants that have not changed it.
            uuid: UUID in its environment, and in that of descendants that have not changed it.
            within: timeout in seconds.

        Returns:
            None if nothing is left, else what remains, in words.
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
        """Note that a stray was reaped."""
        self._owners.pop(pid, None)
        self._look_soon()

    def close(self) -> None:
        """Stop looking."""
        if self._next is not None:
            self._next.cancel()

    def _look_soon(self) -> None:
        if self._next is None and self._hunts:
            self._next = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Kill the strays of all hunts; a hunt that finds none is over."""
        self._reap()  # whatever is still listed after this has not ended
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
        """Return the UUID that a stray belongs to, empty if to none, and whether that is certain.

        A stray that is just ending cannot be identified, and its children are not in the list yet.
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
