"""What the processes of an instance use."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes use together; None is what cannot be told here."""

    since: float
    """From when on CPU time and I/O are counted, in seconds since the epoch."""
    cpu_seconds: float | None = None
    """Also of processes that have ended, if the kernel keeps count; else only of those that live."""
    memory_bytes: int | None = None
    """The working set, with page cache that is in use, if the kernel keeps count; else what is resident."""
    processes: int | None = None
    """How many live."""
    threads: int | None = None
    read_bytes: int | None = None
    """From block devices."""
    written_bytes: int | None = None
    out_of_memory_kills: int | None = None
    """Kills for want of memory, as the kernel counts them: one process may count twice."""

    def completed_by(self, other: "Usage") -> "Usage":
        """Return this one with what is None taken from another."""
        return replace(self, **{name: getattr(other, name) for name in self.missing})

    @property
    def missing(self) -> list[str]:
        """The names of what is None."""
        return [each.name for each in fields(self) if getattr(self, each.name) is None]


def total(usages: Iterable[Usage]) -> Usage | None:
    """Return what is used together, since the first of them began; None if there is none.

    What one of them does not tell is not told of all.
    """
    parts = tuple(usages)
    if not parts:
        return None
    sums = {}
    for name in (each.name for each in fields(Usage) if each.name != "since"):
        values = [getattr(part, name) for part in parts]
        sums[name] = None if None in values else sum(values)
    return Usage(min(part.since for part in parts), **sums)


def cpu_share(earlier: Usage, later: Usage, seconds: float) -> float | None:
    """Return how many CPUs were in use on average between two looks; None if that cannot be told.

    Args:
        earlier: what was used at the first look.
        later: what was used at the second one.
        seconds: between them.
    """
    if later.cpu_seconds is None or earlier.cpu_seconds is None or seconds <= 0:
        return None
    # The CPU time of processes that have ended meanwhile may be missing from the later one.
    return max(0.0, later.cpu_seconds - earlier.cpu_seconds) / seconds
