"""What /proc/PID/stat tells of a process; reading it never blocks, and asks nothing of the process itself."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_STATES = {
    "D": "uninterruptible sleep, usually waiting for a disk or the network",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
}


class Stat(NamedTuple):
    """Some of its fields."""

    command: str
    state: str
    session: int
    start_time: int
    """Clock ticks since boot."""


def read_stat(pid: int) -> Stat | None:
    """Return the stat of a process; None if it cannot be read, mostly as there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command is in parentheses, and may contain anything.
    head, _, tail = text.rpartition(") ")
    fields = tail.split()
    return Stat(head.partition(" (")[2], fields[0], int(fields[3]), int(fields[19]))


def describe(pid: int) -> str:
    """Return in words what a process is doing."""
    if pid == 0:
        return "a process of another container, whose PID cannot be seen here"
    stat = read_stat(pid)
    if stat is None:
        return f"pid {pid}"
    place = ""
    with suppress(OSError):
        place = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii").strip().strip("0")
    state = f"{stat.state} ({_STATES[stat.state]})" if stat.state in _STATES else stat.state
    return f"pid {pid} ({stat.command}) in state {state}" + (place and f" in {place}")
