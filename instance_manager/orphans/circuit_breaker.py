"""Many orphans at once suggest that something else is wrong, most likely the owners that were read."""

from collections import deque

_MINUTE = 60.0


class CircuitBreaker:
    """Trips while there are too many orphans: then none is declared, and none deleted without a request."""

    def __init__(self, max_per_minute: int) -> None:
        self.max_per_minute = max_per_minute
        """Largest number of orphans declared within a minute."""
        self.tripped = ""
        """Why no orphan is declared, and none deleted without a request; empty if not halted."""
        self._declared: deque[float] = deque()

    def evaluate(self, suspects: int, now: float) -> None:
        """Trip or reset, given how many suspects have waited long enough to be declared orphans."""
        while self._declared and self._declared[0] <= now - _MINUTE:
            self._declared.popleft()
        declared = len(self._declared)
        self.tripped = ""
        if suspects and suspects + declared > self.max_per_minute:
            self.tripped = (
                f"{suspects} suspected orphans and {declared} declared within a minute are more than "
                f"the {self.max_per_minute} allowed: see whether the owner source is right; if it is, "
                "start the agent again with a higher --max-per-minute, by which nothing is lost"
            )

    def declared(self, now: float) -> None:
        """Count an orphan that was declared."""
        self._declared.append(now)
