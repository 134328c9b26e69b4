"""What a process of an earlier daemon has left behind: no children of this daemon, so found in /proc."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress

from instance_manager.adapters.process import proc
from instance_manager.adapters.process.child import TREE_TIMEOUT
from instance_manager.core.process import Identity

_UNSETTLED_DELAY = 0.002
"""Seconds until another look if a process was in the middle of an execve."""


class Remnants:
    """The descendants of a process that has ended; implements `app.interfaces.Child` for it."""

    def __init__(
        self, identity: Identity, uuid: str, candidates: Callable[[], Iterable[int]], *, by_session: bool
    ) -> None:
        """Nothing is looked for yet.

        Args:
            identity: of the process that has ended.
            uuid: that it and its descendants carry.
            candidates: returns the PIDs of those that may be descendants.
            by_session: whether those in its session belong to it too. Only if it has ended just now: when
                nobody is left in a session, its number may become another's.
        """
        self.identity = identity
        self._uuid = uuid
        self._candidates = candidates
        self._by_session = by_session

    def signal(self, name: str, *, session: bool) -> None:
        """Do nothing: it has ended."""

    def describe(self) -> str:
        """Say in words what the process is doing."""
        return proc.describe(self.identity.pid)

    async def end_tree(self) -> str | None:
        """Kill what the process left behind, until nothing is left or the time is over."""
        left: list[int] = []
        try:
            async with asyncio.timeout(TREE_TIMEOUT):
                settled = False
                while left or not settled:
                    left, settled = self._look()
                    await asyncio.gather(*(self._kill(pid) for pid in left))
                    if not settled:
                        await asyncio.sleep(_UNSETTLED_DELAY)
        except TimeoutError:
            return "; ".join(map(proc.describe, left)) or None
        return None

    def _look(self) -> tuple[list[int], bool]:
        """Return the descendants, and whether every candidate has shown what it is."""
        left, settled = [], True
        for pid in self._candidates():
            marks = proc.read_marks(pid)
            if marks is None or marks.ended:
                continue
            if self._is_ours(marks):
                left.append(pid)
            # A kernel thread shows no environment either, and is in no session.
            settled = settled and (marks.settled or not marks.session)
        return left, settled

    def _is_ours(self, marks: proc.Marks) -> bool:
        if marks.uuid is not None or not self._by_session or marks.session != self.identity.pid:
            return marks.uuid == self._uuid
        leader = proc.read_stat(self.identity.pid)
        return leader is None or leader.start_time == self.identity.start_time

    async def _kill(self, pid: int) -> None:
        """Kill a descendant and wait until it has ended."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            # Looked at again: from now on the PID cannot become another's.
            marks = proc.read_marks(pid)
            if marks is None or not self._is_ours(marks):
                return
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
