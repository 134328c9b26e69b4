"""Limits of what the processes of an instance may use together."""

from dataclasses import dataclass

FILES = {"memory_max": "memory.max", "pids_max": "pids.max", "cpu_weight": "cpu.weight"}
"""By the names that limits have here, those of the files of a cgroup that set them."""


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """What the processes of one instance may use together; None for no limit."""

    memory_max: int | None = None
    """Bytes."""
    pids_max: int | None = None
    """Processes and threads."""
    cpu_weight: int | None = None
    """Share of the CPU when it is scarce, 1 to 10,000; 100 is that of any other."""

    def files(self) -> dict[str, str]:
        """Return what sets them, by the names that the files of a cgroup have."""
        values = {file: getattr(self, name) for name, file in FILES.items()}
        return {file: str(value) for file, value in values.items() if value is not None}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self != InstanceLimits()
