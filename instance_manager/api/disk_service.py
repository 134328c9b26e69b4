"""DiskService: the disks of the v2 data engine, which are those of the SPDK service."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.api.copying import copied
from instance_manager.api.service import Marks, Offer, Service, Unary, rpc
from instance_manager.api.size import size_of
from instance_manager.api.subject import subject_of
from instance_manager.api.version import disk_versions
from instance_manager.app.disks import Disks
from instance_manager.app.engine import Completion, EngineChange
from instance_manager.app.spdk import SpdkInstances
from instance_manager.core.errors import InvalidArgumentError, UnimplementedError
from instance_manager.core.instance import InstanceType
from instance_manager.pb.imrpc import disk_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2
from instance_manager.pb.spdkrpc import spdk_pb2


@dataclass(frozen=True, slots=True)
class Forward:
    """How a method is forwarded to the method of the same name, unless `method` is another one."""

    doing: str
    """What is attempted, for the message of an error; `{r}` is the request."""
    asked: Callable[[Any], Message]
    """Returns what the SPDK service is asked."""
    answer: Callable[[Any], Message]
    """Returns what is answered, from what the SPDK service has answered."""
    required: tuple[str, ...] = ("disk_name",)
    """Fields that must not be empty."""
    changes: bool = False
    method: str = ""


def _replicas(told: spdk_pb2.ReplicaListResponse) -> Message:
    return pb.DiskReplicaInstanceListResponse(
        replica_instances={
            name: copied(pb.ReplicaInstance, each, disk_name=each.lvs_name, disk_uuid=each.lvs_uuid)
            for name, each in told.replicas.items()
        }
    )


_to_disk = partial(copied, pb.Disk)
FORWARDS: Mapping[str, Forward] = {
    "DiskCreate": Forward(
        "create the disk {r.disk_name!r}",
        partial(copied, spdk_pb2.DiskCreateRequest),
        _to_disk,
        required=("disk_name", "disk_path"),
        changes=True,
    ),
    "DiskDelete": Forward(
        "delete the disk {r.disk_name!r}",
        partial(copied, spdk_pb2.DiskDeleteRequest),
        lambda _: empty_pb2.Empty(),
        changes=True,
    ),
    "DiskGet": Forward("get the disk {r.disk_name!r}", partial(copied, spdk_pb2.DiskGetRequest), _to_disk),
    "DiskHealthGet": Forward(
        "get the health of the disk {r.disk_name!r}",
        partial(copied, spdk_pb2.DiskHealthGetRequest),
        partial(copied, pb.DiskHealthGetResponse),
    ),
    "DiskReplicaInstanceList": Forward(
        "list the replicas on the disk {r.disk_name!r}",
        lambda _: empty_pb2.Empty(),
        # Those of all disks: whoever asks compares the names of the disks.
        _replicas,
        method="ReplicaList",
    ),
    "MetricsGet": Forward(
        "get the metrics of the disk {r.disk_name!r}",
        lambda request: spdk_pb2.MetricsRequest(name=request.disk_name),
        lambda told: pb.DiskMetricsGetReply(metrics=copied(controller_pb2.Metrics, told)),
    ),
}
"""By the name of the method that is called here."""
_DELETED_REPLICA = ("disk_name", "disk_uuid", "replcia_instance_name")


@dataclass(frozen=True, slots=True)
class DisksV2:
    """What the SPDK service has."""

    disks: Disks
    instances: SpdkInstances


class DiskService(Service):
    """The methods of DiskService; without `v2` only the version is answered."""

    descriptor = pb.DESCRIPTOR.services_by_name["DiskService"]

    def __init__(self, v2: DisksV2 | None, completion: Completion) -> None:
        self._optional = v2
        self._completion = completion

    def _offered(self) -> dict[str, Offer]:
        forwarded = {
            name: (self._forwarded(name, each), Marks(each.changes)) for name, each in FORWARDS.items()
        }
        return super()._offered() | forwarded

    def _forwarded(self, name: str, forward: Forward) -> Unary:
        async def call(request: Any) -> Message:
            doing = forward.doing.format(r=request)
            v2 = self._checked(request, doing, forward.required)
            work = v2.disks.forward(
                forward.method or name, doing, forward.asked(request), changes=forward.changes
            )
            if not forward.changes:
                return forward.answer(await work)
            which = EngineChange(name, subject=subject_of(request), size=size_of(request))
            # A disk that is half made would be found by nobody.
            return forward.answer(await self._completion.of(work, which))

        return call

    @rpc("VersionGet")
    def version(self, _: empty_pb2.Empty) -> pb.DiskVersionResponse:
        """Return the versions of the program and of this interface."""
        return disk_versions()

    @rpc("DiskReplicaInstanceDelete", changes=True)
    async def delete_replica(self, request: pb.DiskReplicaInstanceDeleteRequest) -> empty_pb2.Empty:
        """Delete a replica and its data; it takes turns with whatever else is done to the instance."""
        name = request.replcia_instance_name
        v2 = self._checked(request, f"delete the replica {name!r}", _DELETED_REPLICA)
        await v2.instances.delete(InstanceType.REPLICA, name, "", cleanup_required=True)
        return empty_pb2.Empty()

    def _checked(self, request: Any, doing: str, required: tuple[str, ...]) -> DisksV2:
        """Return what to ask.

        Raises:
            UnimplementedError: if v2 is not served, or the disk is of a type that SPDK does not have.
            InvalidArgumentError: if a required field is empty.
        """
        if self._optional is None:
            raise UnimplementedError(
                f"cannot {doing}: the v2 data engine is switched off; start the daemon with --spdk-enabled"
            )
        if request.disk_type != pb.block:
            raise UnimplementedError(
                f"cannot {doing}: SPDK has no disks of the disk_type {request.disk_type}; set it to 1 (block)"
            )
        for field in required:
            if not getattr(request, field):
                raise InvalidArgumentError(f"cannot {doing} without {field}: set it")
        return self._optional
