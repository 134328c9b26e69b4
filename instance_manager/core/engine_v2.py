"""What is asked of the v2 engine of a volume, and what its SPDK service tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from instance_manager.core.engine import Disk, Mode, Replica

SCHEME = "tcp://"
"""Begins addresses of replicas as managers match on them; the SPDK service has them without it."""
COMPLETE, FAILED = "complete", "error"
"""States in which a rebuild has ended."""
BACKUP_PARAMETERS = ("backup-mode", "backup-block-size")
PARAMETER_LABEL = "longhorn.io/backup-parameter."


@dataclass(frozen=True, slots=True)
class EngineV2:
    """Which engine is meant."""

    host: str
    """Where its SPDK service is; empty if nobody has said so."""
    volume: str
    name: str
    frontend: str
    """Name of the frontend."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """How a volume is offered on a node, and how its expansion goes."""

    endpoint: str = ""
    frontend: str = ""
    is_expanding: bool = False
    last_expansion_error: str = ""
    last_expansion_failed_at: str = ""


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine; the size is in bytes."""

    volume: str
    size: int
    snapshot_max_count: int
    exposure: Exposure
    replicas: tuple[Replica, ...]
    """In the order of their names."""
    snapshots: Mapping[str, Disk]
    """By name, with the head."""

    def offered_as(self, exposure: Exposure) -> "EngineState":
        """Return the same engine, offered in this way."""
        return replace(self, exposure=exposure)

    def in_mode(self, mode: Mode) -> list[Replica]:
        """Return the replicas in a mode."""
        return [each for each in self.replicas if each.mode is mode]


def with_scheme(address: str) -> str:
    """Return the address of a replica as managers write it; none stays none."""
    return f"{SCHEME}{address}" if address and not address.startswith(SCHEME) else address


def without_scheme(address: str) -> str:
    """Return the address of a replica as the SPDK service writes it."""
    return address.removeprefix(SCHEME)


def backup_labels(labels: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a backup: v2 has no other place for its parameters."""
    told = {f"{PARAMETER_LABEL}{key}": parameters[key] for key in BACKUP_PARAMETERS if key in parameters}
    return {**labels, **told}


def is_rebuilding(state: str) -> bool:
    """Return whether a rebuild in this state goes on."""
    return state not in {"", COMPLETE, FAILED}
