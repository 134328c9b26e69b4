"""Real time, for the daemon and the agent."""

import asyncio
import time
from collections.abc import Callable

from instance_manager.app.interfaces import Cancellable

_LATE = 0.1
"""Seconds; a timer that is later than this has been held up by a stall, not just by a busy machine."""
_SECOND_CHANCE = 5.0
"""Seconds; the longest extra wait after a stall, which may have held up the instances too."""


class LoopClock:
    """Real time; implements `app.interfaces.Clock`."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds; see `app.interfaces.Clock.call_later`."""
        if delay > 0:
            return _FairTimer(delay, action)
        return asyncio.get_running_loop().call_soon(action)


class _FairTimer:
    """A timer that does not fire right after a stall of this program.

    An instance that was given a time, to stop for example, may have kept it while nobody was there to see. So
    a timer that fires late waits once more, and events that happened during the stall are processed first.
    """

    def __init__(self, delay: float, action: Callable[[], None]) -> None:
        self._action = action
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic() + delay
        self._handle = self._loop.call_later(delay, self._look)

    def cancel(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        late = time.monotonic() - self._due
        if late > _LATE:
            self._handle = self._loop.call_later(min(late, _SECOND_CHANCE), self._action)
        else:
            self._action()
