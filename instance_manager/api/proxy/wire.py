"""Conversion between the proxy's messages and values of the core."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from instance_manager.api.proxy.selection import any_engine, metadata_value
from instance_manager.core.backups import BackupRequest, RestoreRequest
from instance_manager.core.engine import Mode, RebuildStatus, Replica, RestoreStatus
from instance_manager.core.engine_address import SYNC_AGENT_OFFSET, engine_address
from instance_manager.core.engine_orders import AddOrder, CloneRequest, LocalSync, copy_timeout
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import syncagent_pb2

M = TypeVar("M", bound=Message)


def filled(message: type[M], value: Any) -> M:
    """Return a message with the fields of a value; the names are the same."""
    return message(**{field.name: getattr(value, field.name) for field in dataclasses.fields(value)})


def all_filled(message: type[M], values: Mapping[str, Any]) -> dict[str, M]:
    """Return values as messages, under the same keys."""
    return {key: filled(message, value) for key, value in values.items()}


def restore_to_wire(status: RestoreStatus) -> pb.EngineBackupRestoreStatus:
    """Return how a restore goes; the file has another name here than in the engine."""
    values = dataclasses.asdict(status)
    return pb.EngineBackupRestoreStatus(filename=values.pop("dest_file_name"), **values)


def rebuild_to_wire(status: RebuildStatus) -> syncagent_pb2.ReplicaRebuildStatusResponse:
    """Return how a rebuild goes; older engines tell one address instead of a list."""
    message = filled(syncagent_pb2.ReplicaRebuildStatusResponse, status)
    if not message.from_replica_address_list and message.from_replica_address:
        message.from_replica_address_list.append(message.from_replica_address)
    return message


def addition_from_wire(request: pb.EngineReplicaAddRequest, volume: str) -> AddOrder:
    """Return the replica to add.

    Raises:
        InvalidArgumentError: if it has no address or name that can be used.
    """
    engine_address(request.replica_address, SYNC_AGENT_OFFSET)
    local = request.local_sync if request.HasField("local_sync") else None
    name = metadata_value("replica_name", request.replica_name)
    return AddOrder(
        replica=Replica(request.replica_address, Mode.WO, volume, name),
        restore=request.restore,
        size=request.size,
        current_size=request.current_size,
        fast_sync=request.fast_sync,
        http_timeout=request.file_sync_http_client_timeout,
        grpc_timeout=copy_timeout(request.grpc_timeout_seconds),
        local=local and LocalSync(local.source_path, local.target_path),
    )


def clone_from_wire(request: pb.EngineSnapshotCloneRequest) -> CloneRequest:
    """Return what to clone.

    Raises:
        InvalidArgumentError: if the source has no address or name that can be used.
    """
    source = pb.ProxyEngineRequest(
        address=request.from_engine_address,
        engine_name=request.from_engine_name,
        volume_name=request.from_volume_name,
    )
    return CloneRequest(
        source=any_engine(source),
        snapshot=request.snapshot_name,
        export_backing_image=request.export_backing_image_if_exist,
        http_timeout=request.file_sync_http_client_timeout,
        grpc_timeout=copy_timeout(request.grpc_timeout_seconds),
    )


def backup_from_wire(request: pb.EngineSnapshotBackupRequest) -> BackupRequest:
    """Return what to back up."""
    return BackupRequest(
        target=request.backup_target,
        envs=tuple(request.envs),
        backup=request.backup_name,
        snapshot=request.snapshot_name,
        labels=dict(request.labels),
        parameters=dict(request.parameters),
        backing_image=request.backing_image_name,
        backing_image_checksum=request.backing_image_checksum,
        compression=request.compression_method,
        concurrent_limit=request.concurrent_limit,
        storage_class=request.storage_class_name,
    )


def restore_from_wire(request: pb.EngineBackupRestoreRequest) -> RestoreRequest:
    """Return what to restore."""
    return RestoreRequest(
        url=request.url,
        target=request.target,
        envs=tuple(request.envs),
        volume=request.volume_name,
        concurrent_limit=request.concurrent_limit,
        encrypted=request.need_correct_encrypted_volume_size,
    )
