"""What engines and replicas are told to do, where it is more than a word."""

from dataclasses import dataclass

from instance_manager.core.engine import Engine, Replica

LONGEST_COPY = 24 * 3600
"""Seconds that a copy of data may take."""


def copy_timeout(asked: int) -> int:
    """Return the timeout of a copy in seconds: as asked, but bounded; 0 if none is asked."""
    return min(max(asked, 0), LONGEST_COPY)


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Start a volume on its first replica; sizes in bytes."""

    address: str
    size: int
    current_size: int


@dataclass(frozen=True, slots=True)
class SyncFile:
    """A file to copy, and its size in bytes."""

    from_file_name: str
    to_file_name: str
    actual_size: int = 0


@dataclass(frozen=True, slots=True)
class LocalSync:
    """Directories of the two replicas, if they are on one node."""

    source_path: str
    target_path: str


@dataclass(frozen=True, slots=True)
class FilesOrder:
    """Copy files from other replicas."""

    sources: tuple[str, ...]
    """Addresses of the replicas, at least one."""
    files: tuple[SyncFile, ...]
    fast_sync: bool
    http_timeout: int
    """Seconds."""
    grpc_timeout: int
    """Seconds; 0: as long as such a copy may take."""
    local: LocalSync | None


@dataclass(frozen=True, slots=True)
class AddOrder:
    """Add a replica to a volume; sizes in bytes."""

    replica: Replica
    restore: bool
    """Whether the volume is being restored: the replica gets its data from the backup."""
    size: int
    current_size: int
    fast_sync: bool
    http_timeout: int
    """Seconds."""
    grpc_timeout: int
    """Seconds; 0: as long as such a copy may take."""
    local: LocalSync | None


@dataclass(frozen=True, slots=True)
class CloneRequest:
    """Copy a snapshot of another volume."""

    source: Engine
    snapshot: str
    export_backing_image: bool
    http_timeout: int
    """Seconds."""
    grpc_timeout: int
    """Seconds; 0: as long as such a copy may take."""


@dataclass(frozen=True, slots=True)
class CloneOrder:
    """Copy a snapshot of a replica of another volume to a replica."""

    source: str
    """Address of the replica, tcp://HOST:PORT."""
    request: CloneRequest
