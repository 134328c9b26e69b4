"""The methods that are one call of an SPDK service each."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.api.copying import copied
from instance_manager.api.proxy.forwards import valid_snapshot
from instance_manager.api.proxy.selection import part, required, v2_engine
from instance_manager.app.engine.spdk import LOCAL, SpdkEngines
from instance_manager.core.engine_address import engine_address
from instance_manager.core.engine_v2 import EngineV2, with_scheme
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2, syncagent_pb2
from instance_manager.pb.spdkrpc import spdk_pb2


@dataclass(frozen=True, slots=True)
class ForwardV2:
    """How a method is forwarded to the SPDK service of the engine."""

    method: str
    """Of SPDKService."""
    failure: str
    """Begins the message of an error; `{r}` is the request, `{e}` the engine."""
    needs: str
    """Which name of the engine the request must have: name or frontend."""
    request: Callable[[EngineV2, Any], Message]
    """Returns what the SPDK service is asked."""
    answer: Callable[[Any], Message] = lambda _: empty_pb2.Empty()
    """Returns what is answered, from what the SPDK service has answered."""
    copying: Callable[[Any], int | None] = lambda _: None
    """Returns how long it may take, if it is one that copies data; see `SpdkEngines.forward`."""

    async def call(self, spdk: SpdkEngines, request: Any) -> Message:
        """Forward a call."""
        engine = named_engine(request, self.needs)
        asked = self.request(engine, request)
        failure = self.failure.format(r=request, e=engine)
        told = await spdk.forward(engine.host, self.method, failure, asked, self.copying(request))
        return self.answer(told)


@dataclass(frozen=True, slots=True)
class ImageForward:
    """How a method about backing images is forwarded to the SPDK service of this node."""

    method: str
    """Of SPDKService."""
    failure: str
    """Begins the message of an error; `{r}` is the request."""
    request: Callable[[Any], Message]
    answer: Callable[[Any], Message]
    required: tuple[str, ...] = ()
    """Fields that must not be empty."""

    async def call(self, spdk: SpdkEngines, request: Any) -> Message:
        """Forward a call."""
        required(request, *self.required)
        failure = self.failure.format(r=request)
        return self.answer(await spdk.forward(LOCAL, self.method, failure, self.request(request)))


def named_engine(request: Any, *names: str) -> EngineV2:
    """Return the v2 engine of a request.

    Raises:
        InvalidArgumentError: if one of these of its names is missing, or the address cannot be used.
    """
    engine = v2_engine(request)
    for name in names:
        if not getattr(engine, name):
            field = "engine_frontend_name" if name == "frontend" else "engine_name"
            raise InvalidArgumentError(f"cannot tell which engine is meant: {field} is empty; set it")
    return engine


def _expansion(engine: EngineV2, request: pb.EngineVolumeExpandRequest) -> Message:
    size = part(request, "expand").size
    if size < 0:
        raise InvalidArgumentError(f"cannot expand to {size} bytes: write a size that is larger than now")
    return spdk_pb2.EngineFrontendExpandRequest(name=engine.frontend, size=size)


def _snapshot(engine: EngineV2, request: pb.EngineVolumeSnapshotRequest) -> Message:
    asked = valid_snapshot(request)
    return spdk_pb2.SnapshotRequest(
        name=engine.frontend,
        snapshot_name=asked.name or str(uuid.uuid4()),
        user_created=True,
        labels=asked.labels,
    )


def _clone(engine: EngineV2, request: pb.EngineSnapshotCloneRequest) -> Message:
    modes = common_pb2.CloneMode
    if request.clone_mode not in modes.values():
        raise InvalidArgumentError(f"cannot use the clone_mode {request.clone_mode}: there is none")
    return spdk_pb2.EngineSnapshotCloneRequest(
        name=engine.name,
        snapshot_name=request.snapshot_name,
        src_engine_name=request.from_engine_name,
        src_engine_address=request.from_engine_address,
        clone_mode=spdk_pb2.CloneMode.Value(modes.Name(request.clone_mode)),
        dst_replica_src_replica_pair_map=request.dst_replica_src_replica_pair_map,
    )


def _addition(engine: EngineV2, request: pb.EngineReplicaAddRequest) -> Message:
    required(request, "replica_name")
    linked = request.linked_clone_source if request.HasField("linked_clone_source") else None
    return spdk_pb2.EngineFrontendReplicaAddRequest(
        engine_frontend_name=engine.frontend,
        replica_name=request.replica_name,
        replica_address=str(engine_address(request.replica_address)),
        fast_sync=request.fast_sync,
        linked_clone_source=linked and copied(spdk_pb2.LinkedCloneSource, linked),
    )


def _removal(engine: EngineV2, request: pb.EngineReplicaRemoveRequest) -> Message:
    if not (request.replica_name or request.replica_address):
        required(request, "replica_name")
    address = str(engine_address(request.replica_address)) if request.replica_address else ""
    return spdk_pb2.EngineReplicaDeleteRequest(
        engine_name=engine.name, replica_name=request.replica_name, replica_address=address
    )


def _checksums(told: spdk_pb2.EngineSnapshotHashStatusResponse) -> Message:
    return pb.EngineSnapshotHashStatusProxyResponse(
        status={
            name: copied(syncagent_pb2.SnapshotHashStatusResponse, each) for name, each in told.status.items()
        }
    )


def _restores(told: spdk_pb2.RestoreStatusResponse) -> Message:
    return pb.EngineBackupRestoreStatusProxyResponse(
        status={
            with_scheme(address): copied(pb.EngineBackupRestoreStatus, each, filename=each.dest_file_name)
            for address, each in told.status.items()
        }
    )


FORWARDS_V2: Mapping[str, ForwardV2] = {
    "VolumeExpand": ForwardV2(
        "EngineFrontendExpand",
        "failed to expand to size {r.expand.size} for engine frontend {e.frontend}",
        "frontend",
        _expansion,
    ),
    "VolumeSnapshotMaxCountSet": ForwardV2(
        "EngineSnapshotMaxCountSet",
        "failed to set snapshot max count to {r.count.count} for engine {e.name}",
        "name",
        lambda e, r: spdk_pb2.EngineSnapshotMaxCountSetRequest(name=e.name, count=part(r, "count").count),
    ),
    "VolumeSnapshot": ForwardV2(
        "EngineFrontendSnapshotCreate",
        "failed to create snapshot {r.snapshot_volume.name} for engine frontend {e.frontend}",
        "frontend",
        _snapshot,
        lambda told: pb.EngineVolumeSnapshotProxyResponse(
            snapshot=controller_pb2.VolumeSnapshotReply(name=told.snapshot_name)
        ),
    ),
    "SnapshotRevert": ForwardV2(
        "EngineFrontendSnapshotRevert",
        "failed to revert to snapshot {r.name} for engine frontend {e.frontend}",
        "frontend",
        lambda e, r: spdk_pb2.SnapshotRequest(name=e.frontend, snapshot_name=r.name),
    ),
    "SnapshotPurge": ForwardV2(
        "EngineFrontendSnapshotPurge",
        "failed to purge snapshots for engine frontend {e.frontend}",
        "frontend",
        lambda e, _: spdk_pb2.SnapshotRequest(name=e.frontend),
    ),
    "SnapshotClone": ForwardV2(
        "EngineSnapshotClone",
        "failed to clone snapshot {r.snapshot_name} from {r.from_engine_name} to engine {e.name}",
        "name",
        _clone,
        copying=lambda r: int(r.grpc_timeout_seconds),
    ),
    "SnapshotHash": ForwardV2(
        "EngineSnapshotHash",
        "failed to hash snapshot {r.snapshot_name} of engine {e.name}",
        "name",
        lambda e, r: spdk_pb2.SnapshotHashRequest(
            name=e.name, snapshot_name=r.snapshot_name, rehash=r.rehash
        ),
    ),
    "SnapshotHashStatus": ForwardV2(
        "EngineSnapshotHashStatus",
        "failed to get the checksum of snapshot {r.snapshot_name} of engine {e.name}",
        "name",
        lambda e, r: spdk_pb2.SnapshotHashStatusRequest(name=e.name, snapshot_name=r.snapshot_name),
        _checksums,
    ),
    "BackupRestoreStatus": ForwardV2(
        "EngineRestoreStatus",
        "failed to get the restore status of engine {e.name}",
        "name",
        lambda e, _: spdk_pb2.RestoreStatusRequest(engine_name=e.name),
        _restores,
    ),
    "ReplicaAdd": ForwardV2(
        "EngineFrontendReplicaAdd",
        "failed to add replica {r.replica_address} to engine frontend {e.frontend}",
        "frontend",
        _addition,
    ),
    "ReplicaRemove": ForwardV2(
        "EngineReplicaDelete",
        "failed to remove replica {r.replica_name} from engine {e.name}",
        "name",
        _removal,
    ),
    "MetricsGet": ForwardV2(
        "MetricsGet",
        "failed to get metrics of engine {e.name}",
        "name",
        lambda e, _: spdk_pb2.MetricsRequest(name=e.name),
        lambda told: pb.EngineMetricsGetProxyResponse(metrics=copied(controller_pb2.Metrics, told)),
    ),
}
"""By the name of the method that is called here."""


def _image(told: spdk_pb2.BackingImage) -> pb.SPDKBackingImageResponse:
    return pb.SPDKBackingImageResponse(
        spec=copied(pb.SPDKBackingImageSpec, told, disk_uuid=told.lvs_uuid, checksum=told.expectedChecksum),
        status=copied(pb.SPDKBackingImageStatus, told, checksum=told.currentChecksum),
    )


def _images(told: spdk_pb2.BackingImageListResponse) -> Message:
    return pb.SPDKBackingImageListResponse(
        backing_images={name: _image(each) for name, each in told.backing_images.items()}
    )


IMAGES: Mapping[str, ImageForward] = {
    "SPDKBackingImageCreate": ImageForward(
        "BackingImageCreate",
        "failed to create backing image {r.name}",
        lambda r: copied(spdk_pb2.BackingImageCreateRequest, r, lvs_uuid=r.disk_uuid),
        _image,
        required=("name", "backing_image_uuid", "disk_uuid"),
    ),
    "SPDKBackingImageDelete": ImageForward(
        "BackingImageDelete",
        "failed to delete backing image {r.name}",
        lambda r: spdk_pb2.BackingImageDeleteRequest(name=r.name, lvs_uuid=r.disk_uuid),
        lambda _: empty_pb2.Empty(),
        required=("name", "disk_uuid"),
    ),
    "SPDKBackingImageGet": ImageForward(
        "BackingImageGet",
        "failed to get backing image {r.name}",
        lambda r: spdk_pb2.BackingImageGetRequest(name=r.name, lvs_uuid=r.disk_uuid),
        _image,
        required=("name", "disk_uuid"),
    ),
    "SPDKBackingImageList": ImageForward(
        "BackingImageList",
        "failed to list backing images",
        lambda _: empty_pb2.Empty(),
        _images,
    ),
}
"""By the name of the method that is called here; they name no engine."""
