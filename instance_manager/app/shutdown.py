"""Shutting down: all processes are stopped in parallel, and those that cannot be stopped are given up."""

import asyncio

from instance_manager.app.supervisor import Supervisor
from instance_manager.core.process import Process, StopRequested
from instance_manager.platform.clock import Cancellable, Clock

LAST_WAIT = 5.0
"""Seconds after the grace period until processes that are left are given up."""


class Shutdown:
    """Stops all processes of a supervisor."""

    def __init__(self, supervisor: Supervisor, clock: Clock) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._over = asyncio.Event()
        """Set when no process is left, or those that are left have been given up."""
        self._giving_up: Cancellable | None = None
        supervisor.on_empty = self._over.set

    async def run(self, grace: float) -> list[Process]:
        """Start nothing any more, and stop all processes in parallel.

        Args:
            grace: seconds until SIGKILL; processes that are left 5 s later are given up.

        Returns:
            The processes that could not be stopped.
        """
        supervisor, actions = self._supervisor, self._supervisor.actions
        if supervisor.draining:
            # `force` may have been called before.
            grace = min(grace, actions.grace)
        self._begin(grace)
        for entry in supervisor.registry.entries():
            supervisor.handle(entry, StopRequested())
            # Only the first wait depends on the grace period; a process that was killed is retried soon.
            if entry.timer is not None and not entry.process.killed:
                actions.arm(entry, grace)
        if supervisor.registry.entries():
            self._over.clear()
            self._give_up_in(grace + LAST_WAIT)
            await self._over.wait()
        if self._giving_up is not None:
            self._giving_up.cancel()
        return supervisor.remaining

    def force(self) -> None:
        """During a shutdown, or just before it: kill at once instead of waiting for the grace period."""
        self._begin(grace=0)
        self._give_up_in(LAST_WAIT)
        for entry in self._supervisor.registry.entries():
            if entry.timer is not None:
                self._supervisor.actions.arm(entry, 0)

    def _begin(self, grace: float) -> None:
        self._supervisor.close()
        self._supervisor.actions.grace = grace

    def _give_up_in(self, seconds: float) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._giving_up = self._clock.call_later(seconds, self._over.set)
