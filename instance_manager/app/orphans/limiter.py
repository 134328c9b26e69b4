"""The brake: many orphans at once are a sign that something else is wrong, most likely the owner source."""

from collections import deque

_MINUTE = 60.0


class Limiter:
    """Halts the declaring of orphans while there are too many."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Orphans that may be declared within a minute."""
        self.halted = ""
        """Why no orphan is declared, and none deleted without a person's order; empty while all is well."""
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
        """Count one that was declared."""
        self._declared.append(now)

    def copy(self) -> "Limiter":
        """Return a copy that changes independently."""
        twin = Limiter(self.limit)
        twin.halted = self.halted
        twin._declared = self._declared.copy()
        return twin
