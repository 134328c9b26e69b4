"""The limiter: many orphans at once suggest that something else is wrong, most likely the owner source."""

from collections import deque

_MINUTE = 60.0


class Limiter:
    """Stops orphans from being declared while there are too many."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Largest number of orphans declared within a minute."""
        self.halted = ""
        """Why no orphan is declared, and none deleted without a request; empty if not halted."""
        self._declared: deque[float] = deque()

    def weigh(self, suspects: int, now: float) -> None:
        """Decide whether to halt, given how many suspects have waited long enough to be declared orphans."""
        while self._declared and self._declared[0] <= now - _MINUTE:
            self._declared.popleft()
        declared = len(self._declared)
        self.halted = ""
        if suspects and suspects + declared > self.limit:
            self.halted = (
                f"{suspects} suspected orphans and {declared} declared within a minute are more than the "
                f"{self.limit} allowed: see whether the owner source is right; if it is, start the agent "
                "again with a higher --max-per-minute, by which nothing is lost"
            )

    def declared(self, now: float) -> None:
        """Count an orphan that was declared."""
        self._declared.append(now)

    def copy(self) -> "Limiter":
        """Return a copy that changes independently."""
        twin = Limiter(self.limit)
        twin.halted = self.halted
        twin._declared = self._declared.copy()
        return twin
