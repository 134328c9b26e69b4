"""The part of ProxyEngineService for the v2 data engine, whose engines are in SPDK services."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.api.proxy.forwards_v2 import FORWARDS_V2, IMAGES, named_engine
from instance_manager.api.proxy.refused import REFUSED_BY_V2
from instance_manager.api.proxy.wire import (
    all_filled,
    backup_from_wire,
    rebuild_to_wire,
    restore_from_wire,
)
from instance_manager.api.service import Context
from instance_manager.app.engine import SpdkEngines
from instance_manager.app.engine.v2 import EnginesV2
from instance_manager.core.engine_v2 import EngineState
from instance_manager.core.errors import UnimplementedError, UpstreamError
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2, syncagent_pb2

_PING = empty_pb2.Empty().SerializeToString()


class ProxyV2:
    """Handles requests with data_engine v2, and those about backing images.

    Whatever an SPDK service answers, the code is INTERNAL: managers search the text, which has the code of
    the service in it.
    """

    def __init__(self, spdk: SpdkEngines) -> None:
        self._spdk = spdk
        self._engines = EnginesV2(spdk)
        self._own: Mapping[str, Callable[[Any], Awaitable[Message]]] = {
            "BackupRestore": self._restore,
            "ReplicaList": self._replicas,
            "ReplicaRebuildingQosSet": self._limit_rebuild,
            "ReplicaRebuildingStatus": self._rebuild_status,
            "SnapshotBackup": self._backup,
            "SnapshotBackupStatus": self._backup_status,
            "SnapshotCloneStatus": self._clone_status,
            "SnapshotList": self._snapshots,
            "SnapshotPurgeStatus": self._purge_status,
            "SnapshotRemove": self._remove_snapshots,
            "VolumeGet": self._volume,
        }

    async def call(self, method: str, request: Any) -> Message:
        """Answer a call of a method.

        Raises:
            InvalidArgumentError: if the request lacks something.
            UnimplementedError: if v2 does not have the method.
            UpstreamError: INTERNAL, if an SPDK service fails.
        """
        try:
            if forward := FORWARDS_V2.get(method) or IMAGES.get(method):
                return await forward.call(self._spdk, request)
            if own := self._own.get(method):
                return await own(request)
        except UpstreamError as error:
            raise UpstreamError("INTERNAL", str(error)) from error
        raise UnimplementedError(f"cannot serve {method}: {REFUSED_BY_V2[method]}")

    async def watch_images(self, _: empty_pb2.Empty, context: Context) -> None:
        """Stream a ping whenever a backing image of this node may have changed."""
        await context.send_initial_metadata(())
        try:
            async with aclosing(self._engines.image_pings()) as pings:
                async for _ping in pings:
                    await context.write(_PING)
        except UpstreamError as error:
            raise UpstreamError("INTERNAL", str(error)) from error

    async def _volume(self, request: pb.ProxyEngineRequest) -> Message:
        state = await self._engines.volume(named_engine(request, "name"))
        return pb.EngineVolumeGetProxyResponse(volume=_volume_to_wire(state))

    async def _snapshots(self, request: pb.ProxyEngineRequest) -> Message:
        state = await self._engines.state(named_engine(request, "name"))
        return pb.EngineSnapshotListProxyResponse(
            disks=all_filled(pb.EngineSnapshotDiskInfo, state.snapshots)
        )

    async def _purge_status(self, request: pb.ProxyEngineRequest) -> Message:
        named_engine(request, "name")
        # A purge is over when its call has been answered.
        return pb.EngineSnapshotPurgeStatusProxyResponse()

    async def _clone_status(self, request: pb.ProxyEngineRequest) -> Message:
        told = await self._engines.clone_status(named_engine(request, "name"))
        return pb.EngineSnapshotCloneStatusProxyResponse(
            status=all_filled(syncagent_pb2.SnapshotCloneStatusResponse, told)
        )

    async def _remove_snapshots(self, request: pb.EngineSnapshotRemoveRequest) -> Message:
        await self._engines.remove_snapshots(named_engine(request, "frontend"), request.names)
        return empty_pb2.Empty()

    async def _replicas(self, request: pb.ProxyEngineRequest) -> Message:
        state = await self._engines.state(named_engine(request, "name"))
        return pb.EngineReplicaListProxyResponse(
            replica_list=controller_pb2.ReplicaListReply(
                replicas=[
                    controller_pb2.ControllerReplica(
                        address=controller_pb2.ReplicaAddress(address=each.address, instanceName=each.name),
                        mode=controller_pb2.ReplicaMode.Value(str(each.mode)),
                    )
                    for each in state.replicas
                ]
            )
        )

    async def _rebuild_status(self, request: pb.ProxyEngineRequest) -> Message:
        told = await self._engines.rebuild_status(named_engine(request, "name"))
        return pb.EngineReplicaRebuildStatusProxyResponse(
            status={address: rebuild_to_wire(each) for address, each in told.items()}
        )

    async def _limit_rebuild(self, request: pb.EngineReplicaRebuildingQosSetRequest) -> Message:
        await self._engines.limit_rebuild(named_engine(request, "name"), request.qos_limit_mbps)
        return empty_pb2.Empty()

    async def _backup(self, request: pb.EngineSnapshotBackupRequest) -> Message:
        told = await self._engines.backup(named_engine(request, "name"), backup_from_wire(request))
        return pb.EngineSnapshotBackupProxyResponse(
            backup_id=told.backup, replica=told.replica, is_incremental=told.is_incremental
        )

    async def _backup_status(self, request: pb.EngineSnapshotBackupStatusRequest) -> Message:
        engine = named_engine(request, "name")
        address, told = await self._engines.backup_status(
            engine, request.backup_name, request.replica_address
        )
        return pb.EngineSnapshotBackupStatusProxyResponse(**dataclasses.asdict(told), replica_address=address)

    async def _restore(self, request: pb.EngineBackupRestoreRequest) -> Message:
        told = await self._engines.restore(named_engine(request, "name"), restore_from_wire(request))
        return pb.EngineBackupRestoreProxyResponse(taskError=told.encode())


def _volume_to_wire(state: EngineState) -> controller_pb2.Volume:
    return controller_pb2.Volume(
        name=state.volume,
        size=state.size,
        replicaCount=len(state.replicas),
        endpoint=state.exposure.endpoint,
        frontend=state.exposure.frontend,
        isExpanding=state.exposure.is_expanding,
        last_expansion_error=state.exposure.last_expansion_error,
        last_expansion_failed_at=state.exposure.last_expansion_failed_at,
        snapshot_max_count=state.snapshot_max_count,
    )
