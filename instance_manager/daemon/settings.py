"""The settings of the daemon."""

from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path

from instance_manager.app.supervisor import Settings
from instance_manager.core.addresses import Address
from instance_manager.core.limits import InstanceLimits
from instance_manager.core.log_retention import LogLimits


class OnStop(StrEnum):
    """What happens to the processes when the daemon is stopped."""

    TERMINATE = auto()
    """They are stopped with it."""
    LEAVE = auto()
    """They keep running, and the next daemon takes them over."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Mutual TLS."""

    folder: Path
    """Holds ca.crt, tls.crt and tls.key."""
    peer_name: str
    """The name that every certificate must carry."""


class ContainmentChoice(StrEnum):
    """How to tell what belongs to an instance."""

    AUTO = auto()
    """By a cgroup each where that is possible, else as `SESSION`."""
    CGROUP = auto()
    """By a cgroup each, or not at all."""
    SESSION = auto()
    """By what can be seen from outside: session, parents, environment."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """All settings of the daemon."""

    listen: Address
    logs_dir: Path
    supervision: Settings
    shutdown_grace: float
    """Seconds from the start of a shutdown to SIGKILL."""
    log_max_size: int
    """Largest size of a log file in bytes."""
    log_keep: LogLimits
    """How long the logs of instances that are gone are kept."""
    echo_logs: bool
    state_dir: Path
    """Where the journal and the guard's records are; used by one daemon at a time."""
    on_stop: OnStop
    binary_roots: tuple[Path, ...]
    """Only programs below these directories may be started; if there are none, any program may be."""
    containment: ContainmentChoice
    cgroup_root: Path | None
    """Directory below which cgroups are made; None for that of this process."""
    limits: InstanceLimits
    """Of each instance."""
    metrics_by_instance: bool
    """Whether metrics tell what each instance uses."""
    max_streams: int
    """Largest number of watches and logs streamed at once."""
    metrics_listen: Address | None
    """Address of metrics, liveness and readiness; None for none."""
    spdk: str | None
    """gRPC target of the SPDK service; None if v2 is not enabled."""
    tls: TlsSettings | None
    """None for plain text."""
    insecure: bool
    """Whether plain text may be served to other machines."""

    @property
    def grace_at_end(self) -> float | None:
        """Seconds that processes get to end when the daemon is stopped, None if they are left alone."""
        return None if self.on_stop is OnStop.LEAVE else self.shutdown_grace
