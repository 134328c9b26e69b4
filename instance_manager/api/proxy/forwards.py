"""The methods that are one call of the engine each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.api.proxy.selection import any_engine, part, v1_engine
from instance_manager.app.engine import Controllers
from instance_manager.core.engine import Engine
from instance_manager.core.snapshots import check_new_snapshot
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2 as engine_pb


@dataclass(frozen=True, slots=True)
class Forward:
    """How a method is forwarded."""

    method: str
    """Of the engine's ControllerService."""
    failure: str
    """Begins the message of an error; `{r}` is the request, `{volume}` the address of the engine."""
    request: Callable[[Any], Message] = lambda _: empty_pb2.Empty()
    """Returns what the engine is asked."""
    answer: Callable[[Any], Message] = lambda _: empty_pb2.Empty()
    """Returns what is answered, from what the engine has answered."""
    changes: bool = False
    engine: Callable[[Any], Engine] = v1_engine

    async def call(self, controllers: Controllers, request: Any) -> Message:
        """Forward a call."""
        engine = self.engine(request)
        asked = self.request(request)
        failure = self.failure.format(r=request, volume=engine.address)
        return self.answer(await controllers.forward(engine, self.method, failure, asked))


def valid_snapshot(request: pb.EngineVolumeSnapshotRequest) -> engine_pb.VolumeSnapshotRequest:
    """Return the snapshot to take.

    Raises:
        InvalidArgumentError: if it is missing or its name cannot be used.
    """
    asked: engine_pb.VolumeSnapshotRequest = part(request, "snapshot_volume")
    check_new_snapshot(asked.name)
    return asked


FORWARDS: Mapping[str, Forward] = {
    "ServerVersionGet": Forward(
        "VersionDetailGet",
        "failed to get version of volume {volume}",
        answer=lambda told: pb.EngineVersionProxyResponse(version=told.version),
        engine=any_engine,
    ),
    "VolumeGet": Forward(
        "VolumeGet",
        "failed to get volume {volume}",
        answer=lambda told: pb.EngineVolumeGetProxyResponse(volume=told),
    ),
    "VolumeExpand": Forward(
        "VolumeExpand",
        "failed to expand to size {r.expand.size} for volume {volume}",
        request=lambda r: part(r, "expand"),
        changes=True,
    ),
    "VolumeFrontendStart": Forward(
        "VolumeFrontendStart",
        "failed to start frontend {r.frontend_start.frontend} for volume {volume}",
        request=lambda r: part(r, "frontend_start"),
        changes=True,
    ),
    "VolumeFrontendShutdown": Forward(
        "VolumeFrontendShutdown", "failed to shut down the frontend of volume {volume}", changes=True
    ),
    "VolumeUnmapMarkSnapChainRemovedSet": Forward(
        "VolumeUnmapMarkSnapChainRemovedSet",
        "failed to set whether unmap marks snapshots as removed for volume {volume}",
        request=lambda r: part(r, "unmap_mark_snap"),
        changes=True,
    ),
    "VolumeSnapshotMaxCountSet": Forward(
        "VolumeSnapshotMaxCountSet",
        "failed to set snapshot max count to {r.count.count} for volume {volume}",
        request=lambda r: part(r, "count"),
        changes=True,
    ),
    "VolumeSnapshotMaxSizeSet": Forward(
        "VolumeSnapshotMaxSizeSet",
        "failed to set snapshot max size to {r.size.size} for volume {volume}",
        request=lambda r: part(r, "size"),
        changes=True,
    ),
    "VolumeSnapshot": Forward(
        "VolumeSnapshot",
        "failed to create snapshot {r.snapshot_volume.name} for volume {volume}",
        request=valid_snapshot,
        answer=lambda told: pb.EngineVolumeSnapshotProxyResponse(snapshot=told),
        changes=True,
    ),
    "SnapshotRevert": Forward(
        "VolumeRevert",
        "failed to revert to snapshot {r.name} for volume {volume}",
        request=lambda r: engine_pb.VolumeRevertRequest(name=r.name),
        changes=True,
    ),
    "ReplicaList": Forward(
        "ReplicaList",
        "failed to list replicas for volume {volume}",
        answer=lambda told: pb.EngineReplicaListProxyResponse(replica_list=told),
    ),
    "ReplicaVerifyRebuild": Forward(
        "ReplicaVerifyRebuild",
        "failed to verify rebuilt replica {r.replica_address} for volume {volume}",
        request=lambda r: engine_pb.ReplicaAddress(address=r.replica_address, instanceName=r.replica_name),
        changes=True,
    ),
    "ReplicaModeUpdate": Forward(
        "ReplicaUpdate",
        "failed to update the mode of replica {r.replica_address} for volume {volume}",
        request=lambda r: engine_pb.ControllerReplica(
            address=engine_pb.ReplicaAddress(address=r.replica_address), mode=r.mode
        ),
        changes=True,
    ),
    "ReplicaRebuildConcurrentSyncLimitSet": Forward(
        "ReplicaRebuildConcurrentSyncLimitSet",
        "failed to set rebuild concurrent sync limit to {r.limit} for volume {volume}",
        request=lambda r: engine_pb.ReplicaRebuildConcurrentSyncLimitSetRequest(limit=r.limit),
        changes=True,
    ),
    "ReplicaRebuildConcurrentSyncLimitGet": Forward(
        "ReplicaRebuildConcurrentSyncLimitGet",
        "failed to get rebuild concurrent sync limit for volume {volume}",
        answer=lambda told: pb.EngineReplicaRebuildConcurrentSyncLimitGetResponse(limit=told.limit),
    ),
    "MetricsGet": Forward(
        "MetricsGet",
        "failed to get metrics for volume {volume}",
        answer=lambda told: pb.EngineMetricsGetProxyResponse(metrics=told.metrics),
    ),
}
"""By the name of the method that is called here."""
WHATEVER_ENGINE = frozenset({"ServerVersionGet"})
"""Those that ask the controller also if the engine is one of v2."""
