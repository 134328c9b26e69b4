"""SPDK services for the use cases of v2 engines; implements `app.engine.spdk.SpdkEngines`."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.adapters.engine.calls import Calls, Target, Timeouts, replica_address
from instance_manager.adapters.engine.spdk_values import clone_status, engine_state, exposure, rebuild_status
from instance_manager.adapters.engine.values import read
from instance_manager.app.engine.spdk import LOCAL
from instance_manager.core.addresses import Address
from instance_manager.core.backups import BackupOrder, BackupStatus, RestoreOrder, StartedBackup
from instance_manager.core.engine import CloneStatus, RebuildStatus, Replica
from instance_manager.core.engine_v2 import EngineState, EngineV2, Exposure, backup_labels
from instance_manager.pb.spdkrpc import spdk_pb2 as pb

_METHODS = pb.DESCRIPTOR.services_by_name["SPDKService"].methods_by_name


class GrpcSpdkEngines:
    """Calls SPDKService.

    Args:
        calls: makes the calls.
        timeouts: bound them.
        local: gRPC target of the SPDK service of this node.
        port: where the SPDK services of other nodes listen.
    """

    def __init__(self, calls: Calls, timeouts: Timeouts, local: str, port: int) -> None:
        self._calls = calls
        self._timeouts = timeouts
        self._local = local
        self._port = port

    async def forward(
        self, host: str | None, method: str, failure: str, request: Message, copying: int | None = None
    ) -> Any:
        """Call a method as it is."""
        within = self._timeouts.call
        if copying is not None:
            within = copying if copying > 0 else self._timeouts.copy
        return await self._calls.call(self._target(host), _METHODS[method], request, failure, within)

    def _target(self, host: str | None) -> Target:
        if host is LOCAL:
            return Target(self._local, "", "")
        return Target(str(Address(host, self._port)) if host else "", "", "")

    async def engine(self, host: str | None, engine: EngineV2) -> EngineState:
        """Return an engine."""
        failure = f"failed to get engine {engine.name}"
        told = await self.forward(host, "EngineGet", failure, pb.EngineGetRequest(name=engine.name))
        return engine_state(told, failure)

    async def exposure(self, engine: EngineV2) -> Exposure:
        """Return what the frontend of an engine tells."""
        request = pb.EngineFrontendGetRequest(name=engine.frontend)
        failure = f"failed to get engine frontend {engine.frontend}"
        target, method = self._target(engine.host), _METHODS["EngineFrontendGet"]
        return exposure(await self._calls.call(target, method, request, failure, self._timeouts.optional))

    async def delete_snapshot(self, engine: EngineV2, name: str) -> None:
        """Delete a snapshot."""
        request = pb.SnapshotRequest(name=engine.frontend, snapshot_name=name)
        failure = f"failed to delete snapshot {name} of engine frontend {engine.frontend}"
        await self.forward(engine.host, "EngineFrontendSnapshotDelete", failure, request)

    async def rebuild_status(self, replica: Replica) -> RebuildStatus:
        """Return how the rebuild of a replica goes."""
        request = pb.ReplicaRebuildingDstShallowCopyCheckRequest(name=replica.name)
        failure = f"failed to get rebuild status of {replica.address}"
        return rebuild_status(
            await self._at_replica(replica, "ReplicaRebuildingDstShallowCopyCheck", failure, request)
        )

    async def limit_rebuild(self, replica: Replica, megabytes: int) -> None:
        """Limit the bandwidth of the rebuild of a replica."""
        request = pb.ReplicaRebuildingDstSetQosLimitRequest(name=replica.name, qos_limit_mbps=megabytes)
        failure = f"failed to limit the rebuild of {replica.address}"
        await self._at_replica(replica, "ReplicaRebuildingDstSetQosLimit", failure, request)

    async def clone_status(self, replica: Replica) -> CloneStatus:
        """Return how a clone to a replica goes."""
        request = pb.ReplicaSnapshotCloneDstStatusCheckRequest(name=replica.name)
        failure = f"failed to get clone status of {replica.address}"
        return clone_status(
            await self._at_replica(replica, "ReplicaSnapshotCloneDstStatusCheck", failure, request)
        )

    async def _at_replica(self, replica: Replica, method: str, failure: str, request: Message) -> Any:
        host = replica_address(replica, 0, failure).host
        return await self.forward(host, method, failure, request)

    async def backup(self, engine: EngineV2, order: BackupOrder) -> StartedBackup:
        """Begin a backup of a snapshot."""
        asked = order.request
        labels = backup_labels(asked.labels, asked.parameters)
        request = pb.BackupCreateRequest(
            snapshot_name=asked.snapshot,
            backup_target=asked.target,
            volume_name=order.volume,
            engine_name=engine.name,
            labels=[f"{key}={value}" for key, value in labels.items()],
            credential=order.credential,
            backing_image_name=asked.backing_image,
            backing_image_checksum=asked.backing_image_checksum,
            backup_name=asked.backup,
            compression_method=asked.compression,
            concurrent_limit=asked.concurrent_limit,
            storage_class_name=asked.storage_class,
        )
        failure = f"failed to create backup {asked.backup} of engine {engine.name}"
        told = await self.forward(engine.host, "EngineBackupCreate", failure, request)
        return StartedBackup(told.backup, told.replica_address, told.is_incremental)

    async def backup_status(self, engine: EngineV2, backup: str, address: str) -> tuple[str, BackupStatus]:
        """Return the address of the replica that makes a backup, and how that goes."""
        request = pb.BackupStatusRequest(backup=backup, engine_name=engine.name, replica_address=address)
        failure = f"failed to get the status of backup {backup} from {address}"
        told = await self.forward(engine.host, "EngineBackupStatus", failure, request)
        return told.replica_address, read(BackupStatus, told)

    async def restore(self, engine: EngineV2, order: RestoreOrder) -> Mapping[str, str]:
        """Begin to restore a backup."""
        request = pb.EngineBackupRestoreRequest(
            backup_url=order.url,
            engine_name=engine.name,
            credential=order.credential,
            concurrent_limit=order.concurrent_limit,
        )
        failure = f"failed to restore backup {order.url} to engine {engine.name}"
        return dict((await self.forward(engine.host, "EngineBackupRestore", failure, request)).errors)

    async def image_pings(self) -> AsyncGenerator[None]:
        """Yield whenever a backing image of this node has changed."""
        failure = "failed to watch backing images"
        stream = self._calls.stream(
            self._target(LOCAL), _METHODS["BackingImageWatch"], empty_pb2.Empty(), failure
        )
        async with aclosing(stream):
            async for _ in stream:
                yield
