"""What a person can set about the daemon."""

from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path

from instance_manager.adapters.metrics import Endpoint
from instance_manager.api.server import Address
from instance_manager.app.supervisor import Settings


class OnStop(StrEnum):
    """What becomes of the processes when the daemon is asked to end."""

    TERMINATE = auto()
    """They end with it."""
    LEAVE = auto()
    """They live on and the next daemon takes them over."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Mutual TLS."""

    folder: Path
    """Holds ca.crt, tls.crt and tls.key."""
    peer_name: str
    """The name that every certificate has to carry."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """Everything a person can set."""

    listen: Address
    logs_dir: Path
    supervision: Settings
    shutdown_grace: float
    """Seconds from the begin of a shutdown to SIGKILL."""
    log_max_size: int
    """Bytes a log file may have."""
    echo_logs: bool
    state_dir: Path
    """Where the journal and the guard's records are; one daemon at a time."""
    on_stop: OnStop
    binary_roots: tuple[Path, ...]
    """Directories below which everything lies that may be started; none: everything may be."""
    max_streams: int
    """Watches and logs that may be streamed at once."""
    metrics_listen: Endpoint | None
    """Where metrics, liveness and readiness are told; None: nowhere."""
    metrics_required: bool
    """Whether the daemon refuses to start if they cannot be told there."""
    spdk: str | None
    """gRPC target of the SPDK service; None: no v2 data engine."""
    tls: TlsSettings | None
    """None serves plain text."""
    insecure: bool
    """Whether plain text may be served to other machines."""
