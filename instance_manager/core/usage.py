"""What the processes of an instance use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes use together; None is what cannot be told here."""

    since: float
    """From when on CPU time and I/O are counted, in seconds since the epoch."""
    cpu_seconds: float | None = None
    """Also of processes that have ended, if the kernel keeps count; else only of those that live."""
    memory_bytes: int | None = None
    """With page cache, if the kernel keeps count; else resident; what is shared counts for each then."""
    processes: int | None = None
    """How many live."""
    threads: int | None = None
    read_bytes: int | None = None
    """From block devices."""
    written_bytes: int | None = None
