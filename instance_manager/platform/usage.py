"""What processes use, as each of them tells."""

from collections.abc import Collection, Mapping
from itertools import chain
from typing import TypeVar

import psutil

from instance_manager.core.usage import Usage, total
from instance_manager.platform.proc import UnreadableError
from instance_manager.platform.reading import BoundedReader

Group = TypeVar("Group")


async def usage_of(groups: Mapping[Group, Collection[int]], reader: BoundedReader) -> dict[Group, Usage]:
    """Return what groups of processes use; one of which no process can be read is left out.

    Args:
        groups: PIDs by group.
        reader: asks them: a process that is in the middle of an execve may not answer for a while.
    """
    each = await reader.read(tuple(set(chain.from_iterable(groups.values()))), _usage)
    found = {}
    for group, pids in groups.items():
        parts = [part for pid in pids if isinstance(part := each[pid], Usage)]
        if (whole := total(parts)) is not None:
            found[group] = whole
    return found


def _usage(pid: int) -> Usage:
    """Return what a process uses.

    Raises:
        UnreadableError: if it cannot be read, mostly as it has ended.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            usage = Usage(
                process.create_time(),
                cpu_seconds=times.user + times.system,
                memory_bytes=process.memory_info().rss,
                processes=1,
                threads=process.num_threads(),
            )
    except (psutil.Error, OSError) as error:
        raise UnreadableError(str(error)) from error
    return usage.completed_by(_transferred(process, usage.since))


def _transferred(process: psutil.Process, since: float) -> Usage:
    """Return what a process has read and written; nothing of another user's."""
    try:
        moved = process.io_counters()
    except (psutil.Error, OSError, NotImplementedError):
        return Usage(since)
    return Usage(since, read_bytes=moved.read_bytes, written_bytes=moved.write_bytes)
