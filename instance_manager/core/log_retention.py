"""Which log files to remove: those of instances that are gone, by age and by their size in all."""

from collections.abc import Iterable
from dataclasses import dataclass

KEPT_FAILED = 10
"""So many logs of instances that ended in error, the newest, are kept longest: until nothing else is left."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How long logs are kept after their instances are gone."""

    age: float = 7 * 86_400.0
    """Seconds since the end of the instance, or its last line if that is not known; 0 for no limit."""
    size: int = 1 << 30
    """Bytes of all logs of instances that are gone; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A log file in the directory."""

    name: str
    """Name of the instance."""
    size: int
    """Bytes that it takes on the disk."""
    age: float
    """Seconds; see `LogLimits.age`."""
    living: bool
    """Whether an instance may still write it."""
    failed: bool
    """Whether its instance ended in error."""


def surplus(logs: Iterable[StoredLog], limits: LogLimits) -> list[StoredLog]:
    """Return the logs to remove, in this order; never one of a living instance."""
    gone = sorted((log for log in logs if not log.living), key=lambda log: (log.age, log.name))
    favoured = [log for log in gone if log.failed][:KEPT_FAILED]
    others = [log for log in gone if log not in favoured]
    removed = [log for log in reversed(others) if limits.age and log.age > limits.age]
    if not limits.size:
        return removed
    kept = others[: len(others) - len(removed)]
    excess = sum(log.size for log in (*kept, *favoured)) - limits.size
    for log in (*reversed(kept), *reversed(favoured)):
        if excess <= 0:
            break
        if log.size:
            removed.append(log)
            excess -= log.size
    return removed
