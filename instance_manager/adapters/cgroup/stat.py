"""What the kernel counts for a cgroup; a file that is missing belongs to a controller that is not in use."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from instance_manager.core.usage import Usage


def read(folder: int, name: str) -> str:
    """Return the content of a file of a cgroup.

    Raises:
        OSError: if it cannot be read.
    """
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        content = b""
        while part := os.read(fd, 1 << 16):
            content += part
        return content.decode("ascii")
    finally:
        os.close(fd)


def keyed(text: str) -> dict[str, int]:
    """Return the numbers of a file with a key and a number in each line."""
    return {key: int(number) for key, _, number in (line.partition(" ") for line in text.splitlines())}


def transferred(text: str) -> dict[str, int]:
    """Return the sums over all devices of a file with a device and KEY=NUMBER pairs in each line."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        for pair in line.split()[1:]:
            key, _, number = pair.partition("=")
            sums[key] = sums.get(key, 0) + int(number)
    return sums


def usage(folder: int, seen: Usage) -> Usage:
    """Return what the processes of a cgroup use.

    Args:
        folder: its directory, which is open.
        seen: what its living processes tell, for what the kernel does not count.
    """
    with suppress(OSError):
        seen = replace(seen, cpu_seconds=keyed(read(folder, "cpu.stat"))["usage_usec"] / 1e6)
    with suppress(OSError):
        seen = replace(seen, memory_bytes=int(read(folder, "memory.current")))
    with suppress(OSError):
        moved = transferred(read(folder, "io.stat"))
        seen = replace(seen, read_bytes=moved.get("rbytes", 0), written_bytes=moved.get("wbytes", 0))
    return seen


def killed_for_memory(folder: int) -> str:
    """Return in words for which limit of memory the kernel has killed a process; empty if it has not."""
    try:
        events: Mapping[str, int] = keyed(read(folder, "memory.events"))
    except OSError:
        return ""
    if not events.get("oom_kill"):
        return ""
    with suppress(OSError, ValueError):
        return f"out of memory: limit {_size(int(read(folder, 'memory.max')))} of this instance"
    return "out of memory"


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"
