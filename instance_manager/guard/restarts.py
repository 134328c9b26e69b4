"""When to start again what has died, and when to give up."""

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
STEADY = 1.0
"""Seconds: whatever ran that long does not die at its start, so it is started again without much delay."""


class Restarts:
    """Counts the restarts; knows no clock."""

    def __init__(self, limit: int, within: float) -> None:
        self._limit = limit
        self._within = within
        self._delay = 0.0
        self._times: list[float] = []

    def delay_after(self, ran: float, now: float) -> float | None:
        """Take note of a death.

        Args:
            ran: seconds from the start to the death.
            now: seconds of a clock that only goes forward.

        Returns:
            Seconds to wait before the restart, None if there have been too many.
        """
        self._times = [time for time in self._times if now - time < self._within]
        if len(self._times) >= self._limit:
            return None
        self._times.append(now)
        fresh = ran >= STEADY or not self._delay
        self._delay = FIRST_DELAY if fresh else min(2 * self._delay, LONGEST_DELAY)
        return self._delay
