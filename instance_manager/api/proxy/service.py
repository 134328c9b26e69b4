"""ProxyEngineService: the methods for v1 engines. Requests about v2 engines go to `ProxyV2`."""

import dataclasses
import uuid
from collections.abc import Coroutine
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.api.proxy.forwards import FORWARDS, WHATEVER_ENGINE, Forward
from instance_manager.api.proxy.forwards_v2 import IMAGES
from instance_manager.api.proxy.refused import READS, REFUSED
from instance_manager.api.proxy.selection import change_of, is_v2, metadata_value, v1_engine
from instance_manager.api.proxy.v2 import ProxyV2
from instance_manager.api.proxy.wire import (
    addition_from_wire,
    all_filled,
    backup_from_wire,
    clone_from_wire,
    rebuild_to_wire,
    restore_from_wire,
    restore_to_wire,
)
from instance_manager.api.service import Marks, Offer, Service, Unary, rpc
from instance_manager.api.subject import task_error
from instance_manager.app.engine import Completion, Engines, NodeMounts
from instance_manager.app.engine.backups import Backups, BackupStore
from instance_manager.app.engine.reads import EngineReads
from instance_manager.app.engine.rebuild import Membership
from instance_manager.app.engine.snapshots import Snapshots
from instance_manager.core.errors import UnimplementedError
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import syncagent_pb2


class ProxyService(Service):
    """The methods of ProxyEngineService.

    Reads end when their caller goes away; changes are completed.
    """

    descriptor = pb.DESCRIPTOR.services_by_name["ProxyEngineService"]

    def __init__(
        self,
        engines: Engines,
        completion: Completion,
        mounts: NodeMounts,
        store: BackupStore,
        v2: ProxyV2 | None = None,
    ) -> None:
        """Take what is asked; `v2` is None if the v2 data engine is switched off."""
        self._controllers = engines.controllers
        self._completion = completion
        self._mounts = mounts
        self._reads = EngineReads(engines)
        self._snapshots = Snapshots(engines)
        self._membership = Membership(engines)
        self._backups = Backups(engines, store, new_uuid=lambda: str(uuid.uuid4()))
        self._v2 = v2

    def _offered(self) -> dict[str, Offer]:
        v1: dict[str, Offer] = (
            super()._offered()
            | {name: (self._forwarded(name, each), Marks(each.changes)) for name, each in FORWARDS.items()}
            | {name: (_refused(name, why), Marks(name not in READS)) for name, why in REFUSED.items()}
        )
        if self._v2 is None:
            return v1
        either = {name: self._either(name, offer, self._v2) for name, offer in v1.items()}
        return either | {"SPDKBackingImageWatch": (self._v2.watch_images, Marks())}

    def _either(self, name: str, offer: Offer, v2: ProxyV2) -> Offer:
        """Return a method that is served by the data engine that its request means."""
        of_v1: Any = offer[0]
        marks, of_v2_alone = offer[1], name in IMAGES

        async def call(request: Any) -> Message:
            if not (of_v2_alone or (is_v2(request) and name not in WHATEVER_ENGINE)):
                answer: Message = await of_v1(request)
                return answer
            if not marks.changes:
                return await v2.call(name, request)
            which = change_of(name, request)
            return await self._completion.of(v2.call(name, request), which, task_error)

        return call, marks

    def _forwarded(self, name: str, forward: Forward) -> Unary:
        async def call(request: Any) -> Message:
            if not forward.changes:
                return await forward.call(self._controllers, request)
            which = change_of(name, request)
            return await self._completion.of(forward.call(self._controllers, request), which)

        return call

    @rpc("SnapshotList")
    async def snapshots(self, request: pb.ProxyEngineRequest) -> pb.EngineSnapshotListProxyResponse:
        """Return the snapshots."""
        disks = await self._reads.snapshots(v1_engine(request))
        return pb.EngineSnapshotListProxyResponse(disks=all_filled(pb.EngineSnapshotDiskInfo, disks))

    @rpc("SnapshotPurgeStatus")
    async def purge_status(self, request: pb.ProxyEngineRequest) -> pb.EngineSnapshotPurgeStatusProxyResponse:
        """Return how a purge goes."""
        told = await self._reads.purge_status(v1_engine(request))
        return pb.EngineSnapshotPurgeStatusProxyResponse(
            status=all_filled(syncagent_pb2.SnapshotPurgeStatusResponse, told)
        )

    @rpc("SnapshotCloneStatus")
    async def clone_status(self, request: pb.ProxyEngineRequest) -> pb.EngineSnapshotCloneStatusProxyResponse:
        """Return how a clone goes."""
        told = await self._reads.clone_status(v1_engine(request))
        return pb.EngineSnapshotCloneStatusProxyResponse(
            status=all_filled(syncagent_pb2.SnapshotCloneStatusResponse, told)
        )

    @rpc("SnapshotHashStatus")
    async def hash_status(
        self, request: pb.EngineSnapshotHashStatusRequest
    ) -> pb.EngineSnapshotHashStatusProxyResponse:
        """Return the checksum of a snapshot."""
        told = await self._reads.hash_status(v1_engine(request), request.snapshot_name)
        return pb.EngineSnapshotHashStatusProxyResponse(
            status=all_filled(syncagent_pb2.SnapshotHashStatusResponse, told)
        )

    @rpc("BackupRestoreStatus")
    async def restore_status(
        self, request: pb.ProxyEngineRequest
    ) -> pb.EngineBackupRestoreStatusProxyResponse:
        """Return how a restore goes."""
        told = await self._reads.restore_status(v1_engine(request))
        return pb.EngineBackupRestoreStatusProxyResponse(
            status={address: restore_to_wire(each) for address, each in told.items()}
        )

    @rpc("ReplicaRebuildingStatus")
    async def rebuild_status(
        self, request: pb.ProxyEngineRequest
    ) -> pb.EngineReplicaRebuildStatusProxyResponse:
        """Return how the rebuild goes."""
        told = await self._reads.rebuild_status(v1_engine(request))
        return pb.EngineReplicaRebuildStatusProxyResponse(
            status={address: rebuild_to_wire(each) for address, each in told.items()}
        )

    @rpc("SnapshotRemove", changes=True)
    async def remove_snapshots(self, request: pb.EngineSnapshotRemoveRequest) -> empty_pb2.Empty:
        """Mark snapshots for the next purge."""
        return await self._done(
            "SnapshotRemove", request, self._snapshots.remove(v1_engine(request), request.names)
        )

    @rpc("SnapshotPurge", changes=True)
    async def purge(self, request: pb.EngineSnapshotPurgeRequest) -> empty_pb2.Empty:
        """Begin to free the snapshots that are marked."""
        skip = request.skip_if_in_progress
        return await self._done(
            "SnapshotPurge", request, self._snapshots.purge(v1_engine(request), skip_if_in_progress=skip)
        )

    @rpc("SnapshotHash", changes=True)
    async def hash(self, request: pb.EngineSnapshotHashRequest) -> empty_pb2.Empty:
        """Begin to compute the checksum of a snapshot."""
        engine, name = v1_engine(request), request.snapshot_name
        return await self._done(
            "SnapshotHash", request, self._snapshots.hash(engine, name, again=request.rehash)
        )

    @rpc("SnapshotClone", changes=True)
    async def clone(self, request: pb.EngineSnapshotCloneRequest) -> empty_pb2.Empty:
        """Copy a snapshot of another volume."""
        return await self._done(
            "SnapshotClone", request, self._snapshots.clone(v1_engine(request), clone_from_wire(request))
        )

    @rpc("ReplicaAdd", changes=True)
    async def add_replica(self, request: pb.EngineReplicaAddRequest) -> empty_pb2.Empty:
        """Add a replica and rebuild it."""
        engine = v1_engine(request)
        return await self._done(
            "ReplicaAdd", request, self._membership.add(engine, addition_from_wire(request, engine.volume))
        )

    @rpc("ReplicaRemove", changes=True)
    async def remove_replica(self, request: pb.EngineReplicaRemoveRequest) -> empty_pb2.Empty:
        """Take a replica from the volume."""
        return await self._done(
            "ReplicaRemove", request, self._membership.remove(v1_engine(request), request.replica_address)
        )

    @rpc("SnapshotBackup", changes=True, large=True)
    async def backup(self, request: pb.EngineSnapshotBackupRequest) -> pb.EngineSnapshotBackupProxyResponse:
        """Begin a backup of a snapshot."""
        asked = backup_from_wire(request)
        told = await self._completion.of(
            self._backups.create(v1_engine(request), asked), change_of("SnapshotBackup", request)
        )
        return pb.EngineSnapshotBackupProxyResponse(
            backup_id=told.backup, replica=told.replica, is_incremental=told.is_incremental
        )

    @rpc("SnapshotBackupStatus")
    async def backup_status(
        self, request: pb.EngineSnapshotBackupStatusRequest
    ) -> pb.EngineSnapshotBackupStatusProxyResponse:
        """Return how a backup goes."""
        name = metadata_value("replica_name", request.replica_name)
        address, told = await self._backups.status(
            v1_engine(request), request.backup_name, request.replica_address, name
        )
        return pb.EngineSnapshotBackupStatusProxyResponse(**dataclasses.asdict(told), replica_address=address)

    @rpc("BackupRestore", changes=True, large=True)
    async def restore(self, request: pb.EngineBackupRestoreRequest) -> pb.EngineBackupRestoreProxyResponse:
        """Begin to restore a backup."""
        asked = restore_from_wire(request)
        told = await self._completion.of(
            self._backups.restore(v1_engine(request), asked),
            change_of("BackupRestore", request),
            failure=lambda error: error,
        )
        return pb.EngineBackupRestoreProxyResponse(taskError=told.encode())

    @rpc("RemountReadOnlyVolume", changes=True)
    async def remount(self, request: pb.RemountVolumeRequest) -> empty_pb2.Empty:
        """Make the file system of a volume writable again."""
        return await self._done(
            "RemountReadOnlyVolume", request, self._mounts.remount_writable(request.volume_name)
        )

    @rpc("CleanupBackupMountPoints", changes=True)
    async def clean_up(self, request: empty_pb2.Empty) -> empty_pb2.Empty:
        """Unmount the backup targets."""
        return await self._done("CleanupBackupMountPoints", request, self._mounts.unmount_backup_targets())

    async def _done(
        self, method: str, request: Message, change: Coroutine[Any, Any, None]
    ) -> empty_pb2.Empty:
        """Complete a change that returns nothing."""
        await self._completion.of(change, change_of(method, request))
        return empty_pb2.Empty()


def _refused(method: str, why: str) -> Unary:
    async def refuse(*_: Any) -> Message:
        raise UnimplementedError(f"cannot serve {method}: {why}")

    return refuse
