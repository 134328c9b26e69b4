"""Limits of an instance, and the controllers of the kernel that keep them."""

from collections.abc import Iterator
from dataclasses import dataclass

from instance_manager.adapters.cgroup.folder import Folder


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of one instance may use together; None for no limit."""

    memory_max: int | None = None
    """Bytes."""
    pids_max: int | None = None
    """Processes and threads."""
    cpu_weight: int | None = None
    """Share of the CPU when it is scarce, 1 to 10,000; 100 is that of any other."""


def settings_of(limits: Limits) -> Iterator[tuple[str, str, bool]]:
    """Yield the files of a cgroup to write, what to write, and whether somebody asked for it."""
    # One without some of its processes is neither running nor ended: all of it goes, and is seen to go.
    yield "memory.oom.group", "1", False
    if limits.memory_max is not None:
        yield "memory.max", str(limits.memory_max), True
    if limits.pids_max is not None:
        yield "pids.max", str(limits.pids_max), True
    if limits.cpu_weight is not None:
        yield "cpu.weight", str(limits.cpu_weight), True


def limit(folder: Folder, limits: Limits) -> dict[str, str]:
    """Set the limits of a cgroup; return why some could not be set, by file."""
    refused = {}
    for file, text, wanted in settings_of(limits):
        try:
            folder.write(file, text)
        except FileNotFoundError:
            if wanted:
                refused[file] = f"the controller {file.partition('.')[0]} is not enabled"
        except OSError as error:
            if wanted:
                refused[file] = error.strerror or str(error)
    return refused
