"""Limits of what the processes of an instance may use together."""

from dataclasses import dataclass


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
        values = {"memory.max": self.memory_max, "pids.max": self.pids_max, "cpu.weight": self.cpu_weight}
        return {name: str(value) for name, value in values.items() if value is not None}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self != InstanceLimits()
