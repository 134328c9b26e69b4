"""When to restart a program that has died, and when to give up."""

from instance_manager.platform.backoff import exponential_backoff

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
STEADY = 1.0
"""Seconds; a program that ran this long did not die at its start: it is restarted after the first delay."""
SLOW_DELAY = 30.0
"""Seconds between attempts when all restarts are used up and instances live that the guard must not leave."""
RECOVERED = 60.0
"""Seconds; a program that ran this long after its restarts were used up has all of them again."""


class Restarts:
    """Counts the restarts, without a clock of its own."""

    def __init__(self, limit: int, within: float) -> None:
        self._limit = limit
        self._within = within
        self._delays = exponential_backoff(FIRST_DELAY, LONGEST_DELAY)
        self._used_up = False
        self._times: list[float] = []

    def delay_after(self, ran: float, now: float) -> float | None:
        """Note that the program has died.

        Args:
            ran: how long it ran, in seconds.
            now: seconds of a monotonic clock.

        Returns:
            Seconds to wait before the restart, None if there have been too many. That stays so until the
            program has run for `RECOVERED` seconds: slow attempts must not make room for quick ones again.
        """
        if self._used_up and ran >= RECOVERED:
            self._used_up = False
            self._times.clear()
        self._times = [time for time in self._times if now - time < self._within]
        self._used_up = self._used_up or len(self._times) >= self._limit
        if self._used_up:
            return None
        self._times.append(now)
        if ran >= STEADY:
            self._delays = exponential_backoff(FIRST_DELAY, LONGEST_DELAY)
        return next(self._delays)
