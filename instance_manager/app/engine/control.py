"""The Protocols of what v1 engines and their replicas do: one for each service that they offer.

Every method raises `UpstreamError` with the code that it was answered with. The message says what has failed
and then, as managers look for it, `rpc error: code = NotFound desc = …`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from instance_manager.core.backups import BackupOrder, BackupStatus, RestoreOrder, StartedBackup
from instance_manager.core.engine import (
    CloneStatus,
    Engine,
    HashStatus,
    PurgeStatus,
    RebuildStatus,
    Replica,
    ReplicaInfo,
    RestoreStatus,
    Volume,
)
from instance_manager.core.engine_orders import CloneOrder, FilesOrder, StartOrder, SyncFile


class Controllers(Protocol):
    """ControllerService of engines."""

    async def forward(self, engine: Engine, method: str, failure: str, request: Any) -> Any:
        """Call a method as it is.

        Args:
            engine: which one.
            method: name of the method.
            failure: begins the message of an error: "failed to get volume …".
            request: the message that the method takes.

        Returns:
            The message that the method returns.
        """

    async def replicas(self, engine: Engine) -> list[Replica]:
        """Return the replicas of an engine."""

    async def volume(self, engine: Engine) -> Volume:
        """Return the volume of an engine."""

    async def start(self, engine: Engine, order: StartOrder) -> None:
        """Start a volume on its first replica."""

    async def add_replica(self, engine: Engine, address: str, *, snapshot: bool) -> None:
        """Add a replica, which is WO then, with a snapshot before it or without."""

    async def remove_replica(self, engine: Engine, address: str) -> None:
        """Remove a replica; nothing if there is none."""

    async def prepare_rebuild(self, engine: Engine, replica: Replica) -> Sequence[SyncFile]:
        """Return the files to copy."""

    async def verify_rebuild(self, engine: Engine, replica: Replica) -> None:
        """Compare a replica with the others and make it RW."""

    async def api_version(self, engine: Engine) -> int:
        """Return the version of the controller's interface."""

    async def sync_limit(self, engine: Engine) -> int:
        """Return from how many replicas at once a rebuild may copy."""


class Replicas(Protocol):
    """ReplicaService of replicas."""

    async def get(self, replica: Replica) -> ReplicaInfo:
        """Return what a replica tells of itself."""

    async def open(self, replica: Replica) -> None:
        """Open its files."""

    async def close(self, replica: Replica) -> None:
        """Close its files."""

    async def reload(self, replica: Replica) -> None:
        """Let it read its files again."""

    async def expand(self, replica: Replica, size: int) -> None:
        """Make it larger, in bytes."""

    async def mark_removed(self, replica: Replica, snapshot: str) -> None:
        """Mark a snapshot for the next purge; nothing if there is none."""

    async def set_rebuilding(self, replica: Replica, *, rebuilding: bool) -> None:
        """Note whether it is being rebuilt."""


class SyncAgents(Protocol):
    """SyncAgentService of replicas."""

    async def purge_status(self, replica: Replica) -> PurgeStatus:
        """Return how a purge goes."""

    async def clone_status(self, replica: Replica) -> CloneStatus:
        """Return how a clone goes."""

    async def hash_status(self, replica: Replica, snapshot: str) -> HashStatus:
        """Return the checksum of a snapshot."""

    async def rebuild_status(self, replica: Replica) -> RebuildStatus:
        """Return how a rebuild goes."""

    async def restore_status(self, replica: Replica) -> RestoreStatus:
        """Return how a restore goes."""

    async def purge(self, replica: Replica) -> None:
        """Begin to free the snapshots that are marked."""

    async def hash(self, replica: Replica, snapshot: str, *, again: bool) -> None:
        """Begin to compute the checksum of a snapshot, also if it is known if `again`."""

    async def hash_cancel(self, replica: Replica, snapshot: str) -> None:
        """End the computation of a checksum; nothing if there is none."""

    async def hash_locked(self, replica: Replica) -> bool:
        """Return whether a checksum is being computed."""

    async def sync_files(self, replica: Replica, order: FilesOrder) -> None:
        """Copy files to a replica and return when that is done."""

    async def clone(self, replica: Replica, order: CloneOrder) -> None:
        """Copy a snapshot of another volume to a replica and return when that is done."""

    async def backup(self, replica: Replica, order: BackupOrder) -> StartedBackup:
        """Begin a backup of a snapshot."""

    async def backup_status(self, replica: Replica, backup: str) -> BackupStatus:
        """Return how a backup goes."""

    async def restore(self, replica: Replica, order: RestoreOrder) -> None:
        """Begin to restore a backup."""


@dataclass(frozen=True, slots=True)
class Engines:
    """All of them."""

    controllers: Controllers
    replicas: Replicas
    agents: SyncAgents
