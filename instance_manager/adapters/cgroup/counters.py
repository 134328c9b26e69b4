"""What the kernel counts for a cgroup; a file that is missing belongs to a controller that is not in use."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.core.usage import Usage


def keyed(text: str) -> dict[str, int]:
    """Return the numbers of a file with a key and a number in each line."""
    return {key: int(number) for key, _, number in (line.partition(" ") for line in text.splitlines())}


def transferred(text: str) -> dict[str, int]:
    """Return the sums over all devices of a file with a device and KEY=NUMBER pairs in each line."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        for pair in line.split()[1:]:
            key, is_pair, number = pair.partition("=")
            if is_pair:
                sums[key] = sums.get(key, 0) + int(number)
    return sums


def usage(folder: Folder, since: float) -> Usage:
    """Return what the processes of a cgroup use, as far as the kernel counts it.

    Args:
        folder: the cgroup.
        since: when it was made, in seconds since the epoch.
    """
    counted = Usage(since)
    with suppress(OSError):
        counted = replace(counted, cpu_seconds=keyed(folder.read("cpu.stat"))["usage_usec"] / 1e6)
    with suppress(OSError):
        counted = replace(counted, memory_bytes=_working_set(folder))
    with suppress(OSError):
        # The kernel counts threads as PIDs.
        counted = replace(counted, threads=int(folder.read("pids.current")))
    with suppress(OSError):
        moved = transferred(folder.read("io.stat"))
        counted = replace(counted, read_bytes=moved.get("rbytes", 0), written_bytes=moved.get("wbytes", 0))
    with suppress(OSError):
        kills = keyed(folder.read("memory.events")).get("oom_kill", 0)
        counted = replace(counted, out_of_memory_kills=kills)
    return counted


def _working_set(folder: Folder) -> int:
    """Return what could not be had back without taking it from somebody, as the kubelet counts it."""
    unused = keyed(folder.read("memory.stat")).get("inactive_file", 0)
    return max(0, int(folder.read("memory.current")) - unused)


def killed_for_memory(folder: Folder) -> str:
    """Return in words for which limit of memory the kernel has killed a process; empty if it has not."""
    with suppress(OSError):
        # Of cgroups that a process has made below, with limits of its own, nothing ends the instance.
        events = keyed(folder.read("memory.events.local"))
        return out_of_memory(events, folder.read("memory.max"))
    return ""


def out_of_memory(events: Mapping[str, int], limit: str) -> str:
    """Return in words why the kernel has killed a process of a cgroup; empty if it has not.

    Args:
        events: of `memory.events.local`.
        limit: the content of `memory.max`.
    """
    if not events.get("oom_kill") and not events.get("oom_group_kill"):
        return ""
    # Where `oom` counts, it was the limit of this one; else that of one above, or the memory of the machine.
    if events.get("oom") and limit.strip().isdecimal():
        return f"out of memory: limit {_size(int(limit))} of this instance"
    return "out of memory: none was left on the machine, or in a cgroup around this one"


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{round(count / size, 2):g} {unit}"
    return f"{count} bytes"
