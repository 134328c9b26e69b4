"""Time and timers: the Protocol, and real time."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

_LATE = 0.1
"""Seconds; a timer that is later than this has been held up by a stall, not just by a busy machine."""
_SECOND_CHANCE = 5.0
"""Seconds; the longest extra wait after a stall, which may have held up the instances too."""


class Cancellable(Protocol):
    """Something in progress that can be cancelled."""

    def cancel(self) -> object:
        """Cancel it; does nothing if it is over."""


class Clock(Protocol):
    """Time and timers."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Call `action` in `delay` seconds; with 0, in the next round of the event loop.

        If the program was stalled and is late, events that happened during the stall are reported first.
        """


class LoopClock:
    """Real time; implements `Clock`."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds; see `Clock.call_later`."""
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


class SteadyClock(LoopClock):
    """Real time that is not affected by setting the machine's clock.

    If the clock were set back, everything would be due too late; if it were set forward, every grace period
    would be over at once.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._steady = steady
        self._begun = wall() - steady()

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._begun + self._steady()
