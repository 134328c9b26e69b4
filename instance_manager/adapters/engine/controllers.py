"""Controllers of engines for the use cases; implements `app.engine.Controllers`."""

from collections import Counter
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.adapters.engine.calls import Calls, Target, Timeouts
from instance_manager.adapters.engine.values import MOST_FILES, check_count, mode, read
from instance_manager.core.engine import Engine, Replica, Volume
from instance_manager.core.engine_orders import StartOrder, SyncFile
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.ptypes import controller_pb2 as pb

_METHODS = pb.DESCRIPTOR.services_by_name["ControllerService"].methods_by_name
_EMPTY = empty_pb2.Empty()
MOST_REPLICAS = 64
"""More than a volume can have: each is asked at once."""
MOST_COPIED = 4 * MOST_FILES
"""A snapshot is a file with its data, and some that describe it."""


class GrpcControllers:
    """Calls ControllerService."""

    def __init__(self, calls: Calls, timeouts: Timeouts) -> None:
        self._calls = calls
        self._timeouts = timeouts

    async def forward(self, engine: Engine, method: str, failure: str, request: Message = _EMPTY) -> Any:
        """Call a method as it is."""
        target = Target(engine.address, engine.volume, engine.name)
        return await self._calls.call(target, _METHODS[method], request, failure, self._timeouts.call)

    async def replicas(self, engine: Engine) -> list[Replica]:
        """Return the replicas of an engine."""
        failure = f"failed to list replicas for volume {engine.address}"
        told = await self.forward(engine, "ReplicaList", failure)
        check_count(failure, "replicas", len(told.replicas), MOST_REPLICAS)
        addresses = Counter(each.address.address for each in told.replicas)
        if twice := [address for address, count in addresses.items() if count > 1]:
            raise UpstreamError("UNKNOWN", f"{failure}: it tells of {twice[0]} more than once")
        return [Replica(each.address.address, mode(each.mode), engine.volume) for each in told.replicas]

    async def volume(self, engine: Engine) -> Volume:
        """Return the volume of an engine."""
        told = await self.forward(engine, "VolumeGet", f"failed to get volume {engine.address}")
        return Volume(
            name=told.name,
            size=told.size,
            replica_count=told.replicaCount,
            frontend_state=told.frontendState,
        )

    async def start(self, engine: Engine, order: StartOrder) -> None:
        """Start a volume on its first replica."""
        request = pb.VolumeStartRequest(
            replicaAddresses=[order.address], size=order.size, currentSize=order.current_size
        )
        failure = f"failed to start volume {engine.address} with replica {order.address}"
        await self.forward(engine, "VolumeStart", failure, request)

    async def add_replica(self, engine: Engine, address: str, *, snapshot: bool) -> None:
        """Add a replica, which is WO then."""
        request = pb.ControllerReplicaCreateRequest(
            address=address, snapshot_required=snapshot, mode=pb.ReplicaMode.WO
        )
        failure = f"failed to create replica {address} for volume {engine.address}"
        await self.forward(engine, "ControllerReplicaCreate", failure, request)

    async def remove_replica(self, engine: Engine, address: str) -> None:
        """Remove a replica."""
        failure = f"failed to delete replica {address} for volume {engine.address}"
        await self.forward(engine, "ReplicaDelete", failure, pb.ReplicaAddress(address=address))

    async def prepare_rebuild(self, engine: Engine, replica: Replica) -> list[SyncFile]:
        """Return the files to copy."""
        failure = f"failed to prepare rebuild of replica {replica.address} for volume {engine.address}"
        told = await self.forward(engine, "ReplicaPrepareRebuild", failure, _address(replica))
        check_count(failure, "files to copy", len(told.sync_file_info_list), MOST_COPIED)
        return [read(SyncFile, each) for each in told.sync_file_info_list]

    async def verify_rebuild(self, engine: Engine, replica: Replica) -> None:
        """Compare a replica with the others and make it RW."""
        failure = f"failed to verify rebuilt replica {replica.address} for volume {engine.address}"
        await self.forward(engine, "ReplicaVerifyRebuild", failure, _address(replica))

    async def api_version(self, engine: Engine) -> int:
        """Return the version of the controller's interface."""
        failure = f"failed to get version of volume {engine.address}"
        told = await self.forward(engine, "VersionDetailGet", failure)
        return int(told.version.controllerAPIVersion)

    async def sync_limit(self, engine: Engine) -> int:
        """Return from how many replicas at once a rebuild may copy."""
        failure = f"failed to get rebuild concurrent sync limit for volume {engine.address}"
        return int((await self.forward(engine, "ReplicaRebuildConcurrentSyncLimitGet", failure)).limit)


def _address(replica: Replica) -> pb.ReplicaAddress:
    return pb.ReplicaAddress(address=replica.address, instanceName=replica.name)
