"""Sync agents of replicas for the use cases; implements `app.engine.SyncAgents`."""

from typing import Any, TypeVar

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.adapters.engine.calls import Calls, Timeouts, replica_address, replica_target
from instance_manager.adapters.engine.values import read
from instance_manager.core.backups import BackupOrder, BackupStatus, RestoreOrder, StartedBackup
from instance_manager.core.engine import (
    CloneStatus,
    HashStatus,
    PurgeStatus,
    RebuildStatus,
    Replica,
    RestoreStatus,
)
from instance_manager.core.engine_address import SYNC_AGENT_OFFSET
from instance_manager.core.engine_orders import CloneOrder, FilesOrder, LocalSync
from instance_manager.pb.ptypes import common_pb2
from instance_manager.pb.ptypes import syncagent_pb2 as pb

_METHODS = pb.DESCRIPTOR.services_by_name["SyncAgentService"].methods_by_name
_EMPTY = empty_pb2.Empty()

T = TypeVar("T")


class GrpcSyncAgents:
    """Calls SyncAgentService."""

    def __init__(self, calls: Calls, timeouts: Timeouts) -> None:
        self._calls = calls
        self._timeouts = timeouts

    async def purge_status(self, replica: Replica) -> PurgeStatus:
        """Return how a purge goes."""
        return await self._status(PurgeStatus, replica, "SnapshotPurgeStatus", "purge")

    async def clone_status(self, replica: Replica) -> CloneStatus:
        """Return how a clone goes."""
        return await self._status(CloneStatus, replica, "SnapshotCloneStatus", "clone")

    async def rebuild_status(self, replica: Replica) -> RebuildStatus:
        """Return how a rebuild goes."""
        return await self._status(RebuildStatus, replica, "ReplicaRebuildStatus", "rebuild")

    async def restore_status(self, replica: Replica) -> RestoreStatus:
        """Return how a restore goes."""
        return await self._status(RestoreStatus, replica, "RestoreStatus", "restore")

    async def hash_status(self, replica: Replica, snapshot: str) -> HashStatus:
        """Return the checksum of a snapshot."""
        request = pb.SnapshotHashStatusRequest(snapshot_name=snapshot)
        failure = f"failed to get the checksum of snapshot {snapshot} on {replica.address}"
        return read(HashStatus, await self._call(replica, "SnapshotHashStatus", failure, request))

    async def purge(self, replica: Replica) -> None:
        """Begin to free the snapshots that are marked."""
        await self._call(replica, "SnapshotPurge", f"failed to purge snapshots on {replica.address}")

    async def hash(self, replica: Replica, snapshot: str, *, again: bool) -> None:
        """Begin to compute the checksum of a snapshot."""
        request = pb.SnapshotHashRequest(snapshot_name=snapshot, rehash=again)
        failure = f"failed to hash snapshot {snapshot} on {replica.address}"
        await self._call(replica, "SnapshotHash", failure, request)

    async def hash_cancel(self, replica: Replica, snapshot: str) -> None:
        """End the computation of a checksum."""
        request = pb.SnapshotHashCancelRequest(snapshot_name=snapshot)
        failure = f"failed to cancel hashing snapshot {snapshot} on {replica.address}"
        await self._call(replica, "SnapshotHashCancel", failure, request)

    async def hash_locked(self, replica: Replica) -> bool:
        """Return whether a checksum is being computed."""
        failure = f"failed to get the hash lock state of {replica.address}"
        return bool((await self._call(replica, "SnapshotHashLockState", failure)).is_locked)

    async def sync_files(self, replica: Replica, order: FilesOrder) -> None:
        """Copy files to a replica and return when that is done."""
        failure = f"failed to sync files from {', '.join(order.sources)} to {replica.address}"
        request = pb.FilesSyncRequest(
            from_address=order.sources[0],
            from_address_map=dict.fromkeys(order.sources, True),
            to_host=replica_address(replica, 0, failure).host,
            sync_file_info_list=[
                common_pb2.SyncFileInfo(
                    from_file_name=file.from_file_name,
                    to_file_name=file.to_file_name,
                    actual_size=file.actual_size,
                )
                for file in order.files
            ],
            fast_sync=order.fast_sync,
            file_sync_http_client_timeout=order.http_timeout,
            grpc_timeout_seconds=order.grpc_timeout,
            local_sync=_local(order.local),
        )
        await self._call(replica, "FilesSync", failure, request, self._copying(order.grpc_timeout))

    async def clone(self, replica: Replica, order: CloneOrder) -> None:
        """Copy a snapshot of another volume to a replica and return when that is done."""
        asked = order.request
        failure = f"failed to clone snapshot {asked.snapshot} from replica {order.source}"
        host = replica_address(replica, 0, f"{failure} to {replica.address}").host
        request = pb.SnapshotCloneRequest(
            from_address=order.source,
            to_host=host,
            snapshot_file_name=asked.snapshot,
            export_backing_image_if_exist=asked.export_backing_image,
            file_sync_http_client_timeout=asked.http_timeout,
            from_volume_name=asked.source.volume,
        )
        within = self._copying(asked.grpc_timeout)
        await self._call(replica, "SnapshotClone", f"{failure} to host {host}", request, within)

    async def backup(self, replica: Replica, order: BackupOrder) -> StartedBackup:
        """Begin a backup of a snapshot."""
        asked = order.request
        request = pb.BackupCreateRequest(
            snapshot_file_name=asked.snapshot,
            backup_target=asked.target,
            volume_name=order.volume,
            labels=[f"{key}={value}" for key, value in asked.labels.items()],
            credential=order.credential,
            backing_image_name=asked.backing_image,
            backing_image_checksum=asked.backing_image_checksum,
            backup_name=asked.backup,
            compression_method=asked.compression,
            concurrent_limit=asked.concurrent_limit,
            storage_class_name=asked.storage_class,
            parameters=asked.parameters,
        )
        failure = f"failed to create backup to {asked.target} for volume {order.volume}"
        told = await self._call(replica, "BackupCreate", failure, request)
        return StartedBackup(told.backup, replica.address, told.is_incremental)

    async def backup_status(self, replica: Replica, backup: str) -> BackupStatus:
        """Return how a backup goes."""
        failure = f"Failed to get backup status on {replica.address} for {backup}"
        request = pb.BackupStatusRequest(backup=backup)
        return read(BackupStatus, await self._call(replica, "BackupStatus", failure, request))

    async def restore(self, replica: Replica, order: RestoreOrder) -> None:
        """Begin to restore a backup."""
        request = pb.BackupRestoreRequest(
            backup=order.url,
            snapshot_disk_name=order.disk,
            credential=order.credential,
            concurrent_limit=order.concurrent_limit,
        )
        failure = f"failed to restore backup data {order.url} to snapshot file {order.disk}"
        await self._call(replica, "BackupRestore", failure, request)

    def _copying(self, asked: int) -> float:
        return float(asked) if asked > 0 else self._timeouts.copy

    async def _status(self, kind: type[T], replica: Replica, method: str, what: str) -> T:
        failure = f"failed to get {what} status of {replica.address}"
        return read(kind, await self._call(replica, method, failure))

    async def _call(
        self,
        replica: Replica,
        method: str,
        failure: str,
        request: Message = _EMPTY,
        within: float | None = None,
    ) -> Any:
        target = replica_target(replica, SYNC_AGENT_OFFSET, failure)
        within = self._timeouts.call if within is None else within
        return await self._calls.call(target, _METHODS[method], request, failure, within)


def _local(sync: LocalSync | None) -> pb.FileLocalSync | None:
    if sync is None:
        return None
    return pb.FileLocalSync(source_path=sync.source_path, target_path=sync.target_path)
