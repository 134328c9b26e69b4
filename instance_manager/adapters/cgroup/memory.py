"""Whether the kernel has killed a process of a cgroup for a limit of memory."""

from contextlib import suppress

from instance_manager.adapters.cgroup.folder import read


def killed_for_memory(folder: int) -> str:
    """Return in words for which limit it has; empty if it has not, or if memory is not limited there."""
    try:
        lines = read(folder, "memory.events").splitlines()
    except OSError:
        return ""
    events = {key: int(number) for key, _, number in (line.partition(" ") for line in lines)}
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
