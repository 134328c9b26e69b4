"""What the supervisor keeps about a process in addition to its value: the child, the timer, who waits."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from instance_manager.app.interfaces import Child
from instance_manager.core.process import Body, Process, State
from instance_manager.platform.clock import Cancellable


@dataclass(frozen=True, slots=True)
class Waiting:
    """A wait for a process to get ready."""

    since: float
    """Seconds since the epoch."""
    purpose: str
    """What is waited for and what is missing, in words."""


class SupervisedProcess:
    """One process under supervision."""

    def __init__(self, process: Process, *, replaces: str = "", ready_within: float | None = None) -> None:
        self.process = process
        self.ready_within = ready_within
        """Seconds from the spawn until it must serve; None for what the settings say."""
        self.replaces = replaces
        """UUID of the process whose name it is to take over; empty if it is not a replacement."""
        self.child: Child | None = None
        self.timer: Cancellable | None = None
        self.readiness: Cancellable | None = None
        self.waiting: Waiting | None = None
        """While it is starting and has ports."""
        self.logs = False
        """Whether it was given a writer for its log."""
        self._waiters: list[tuple[Callable[[Process], bool], asyncio.Future[Process]]] = []

    def on_transition(self) -> None:
        """Cancel obsolete timers, and wake waiters."""
        if self.process.state is not State.STARTING:
            self.waiting = None
        if self.process.state is not State.STARTING and self.readiness is not None:
            self.readiness.cancel()
            self.readiness = None
        if self.process.body is not Body.ALIVE and self.timer is not None:
            self.timer.cancel()
            self.timer = None
        for condition, future in self._waiters:
            if not future.done() and condition(self.process):
                future.set_result(self.process)
        self._waiters = [w for w in self._waiters if not w[1].done()]

    async def wait_for(self, condition: Callable[[Process], bool]) -> Process:
        """Wait until the process meets a condition, and return it as it was then, not as it may be now."""
        if condition(self.process):
            return self.process
        future: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, future))
        return await future
