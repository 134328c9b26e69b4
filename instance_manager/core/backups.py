"""Backups and restores of v1 volumes: what is asked for, and what is decided."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from instance_manager.core.engine import Disk, Replica, ReplicaInfo, Volume
from instance_manager.core.errors import UpstreamError
from instance_manager.core.snapshots import HEAD, snapshot_file

ENCRYPTION_BYTES = 16 << 20
"""How much larger than its backup an encrypted volume is."""
FRONTEND_UP = "up"


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """Back a snapshot up."""

    target: str
    envs: tuple[str, ...] = field(repr=False)
    """KEY=VALUE: the credentials of the target."""
    backup: str
    snapshot: str
    labels: Mapping[str, str]
    parameters: Mapping[str, str]
    backing_image: str
    backing_image_checksum: str
    compression: str
    concurrent_limit: int
    storage_class: str


@dataclass(frozen=True, slots=True)
class BackupOrder:
    """Back a snapshot of a replica up."""

    request: BackupRequest
    volume: str
    credential: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StartedBackup:
    """A backup that was begun."""

    backup: str
    replica: str
    """Address, tcp://HOST:PORT."""
    is_incremental: bool


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How a backup goes; progress in percent."""

    progress: int = 0
    backup_url: str = ""
    error: str = ""
    snapshot_name: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Restore a backup."""

    url: str
    target: str
    envs: tuple[str, ...] = field(repr=False)
    """KEY=VALUE: the credentials of the target."""
    volume: str
    concurrent_limit: int
    encrypted: bool
    """Whether the volume is encrypted, and so larger than its backup."""


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """Restore a backup to a file of a replica."""

    url: str
    disk: str
    credential: Mapping[str, str] = field(repr=False)
    concurrent_limit: int


@dataclass(frozen=True, slots=True)
class BackupVolume:
    """The volume that a backup is of; its size in bytes."""

    name: str
    size: int


class RestoreError(Exception):
    """A restore that is not begun; the message is what managers read of it."""


def replica_errors(failed: Sequence[tuple[str, str]]) -> RestoreError:
    """Return the error about replicas, by their addresses."""
    told = [{"Address": address, "Message": message} for address, message in failed]
    return RestoreError(json.dumps({"ReplicaErrors": told}, separators=(",", ":")))


def check_snapshot(replica: Replica, info: ReplicaInfo, snapshot: str) -> None:
    """Check that a replica has a snapshot.

    Raises:
        UpstreamError: if it does not.
    """
    disk = snapshot_file(snapshot)
    if disk not in info.disks:
        raise UpstreamError("UNKNOWN", f"snapshot disk {disk} not found on replica {replica.address}")


def restored_disk(disks: Mapping[str, Disk], known: str, new_name: str, *, incremental: bool) -> str:
    """Return the file to restore to; empty if there are too many snapshots, which have to be purged first.

    Args:
        disks: the snapshots and the head, by name.
        known: the file that is being restored to, if any.
        new_name: name of a snapshot that is not there yet.
        incremental: whether a backup was restored before.

    Raises:
        RestoreError: if nothing can be restored to this volume.
    """
    match len(disks):
        case 0:
            raise RestoreError("cannot restore: the replicas have no files")
        case 1 if incremental:
            raise RestoreError("cannot restore incrementally: the snapshot of the last restore is missing")
        case 1:
            return known or snapshot_file(new_name)
        case 2:
            if HEAD not in disks or not disks[HEAD].parent:
                raise RestoreError("cannot restore: the volume head is not based on the only snapshot")
            return snapshot_file(disks[HEAD].parent)
    return ""


def check_size(volume: Volume, backup: BackupVolume, *, encrypted: bool, incremental: bool) -> None:
    """Check that a backup fits a volume.

    Raises:
        RestoreError: if it does not.
    """
    size = backup.size + (ENCRYPTION_BYTES if encrypted else 0)
    if size < volume.size:
        raise RestoreError(
            f"BUG: The backup volume {backup.name} size {size} cannot be smaller than the restore volume "
            f"{volume.name} size {volume.size}"
        )
    if size > volume.size and incremental:
        raise RestoreError(
            f"need to expand the DR volume {volume.name} from size {volume.size} to {size} before the restore"
        )
    if size > volume.size:
        raise RestoreError(
            f"BUG: The backup volume {backup.name} size {size} cannot be larger than normal restore volume "
            f"{volume.name} size {volume.size}"
        )
