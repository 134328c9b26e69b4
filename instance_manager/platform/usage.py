"""What processes use, from /proc."""

import os
from collections.abc import Iterable

from instance_manager.core.usage import Usage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")


def usage_of(pids: Iterable[int], since: float) -> Usage:
    """Return what processes use together; those that have ended meanwhile use nothing.

    Args:
        pids: the processes.
        since: when the first of them was started, in seconds since the epoch.
    """
    cpu = memory = processes = threads = 0
    transferred: list[tuple[int, int]] | None = []
    for pid in pids:
        try:
            fields = _read(pid, "stat").rpartition(b") ")[2].split()
        except OSError:
            continue
        processes += 1
        cpu += int(fields[11]) + int(fields[12])
        threads += int(fields[17])
        memory += int(fields[21]) * _PAGE
        if transferred is not None:
            transferred = _with_transfers(transferred, pid)
    return Usage(
        since,
        cpu_seconds=cpu / _TICKS,
        memory_bytes=memory,
        processes=processes,
        threads=threads,
        read_bytes=None if transferred is None else sum(read for read, _ in transferred),
        written_bytes=None if transferred is None else sum(written for _, written in transferred),
    )


def _with_transfers(known: list[tuple[int, int]], pid: int) -> list[tuple[int, int]] | None:
    """Add the bytes that a process has read and written; None if the kernel does not tell."""
    try:
        lines = dict(line.split(b": ") for line in _read(pid, "io").splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return known
    except OSError:
        return None
    return [*known, (int(lines[b"read_bytes"]), int(lines[b"write_bytes"]))]


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - a Path for each costs
        return file.read()
