"""Engines and replicas for the use cases; implements `app.engine.EngineControl`."""

import dataclasses
from typing import Any, TypeVar

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.adapters.engine.calls import Calls, Target, Timeouts
from instance_manager.core.engine import (
    CloneStatus,
    Disk,
    Engine,
    HashStatus,
    Mode,
    PurgeStatus,
    RebuildStatus,
    Replica,
    ReplicaInfo,
    RestoreStatus,
)
from instance_manager.core.engine_address import SYNC_AGENT_OFFSET, engine_address
from instance_manager.core.errors import InvalidArgumentError, UpstreamError
from instance_manager.pb.ptypes import controller_pb2, replica_pb2, syncagent_pb2

_CONTROLLER = controller_pb2.DESCRIPTOR.services_by_name["ControllerService"].methods_by_name
_REPLICA = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"].methods_by_name
_SYNC_AGENT = syncagent_pb2.DESCRIPTOR.services_by_name["SyncAgentService"].methods_by_name
_EMPTY = empty_pb2.Empty()
_MODES = {
    controller_pb2.ReplicaMode.WO: Mode.WO,
    controller_pb2.ReplicaMode.RW: Mode.RW,
    controller_pb2.ReplicaMode.ERR: Mode.ERR,
}

T = TypeVar("T")


class GrpcEngineControl:
    """Calls the controller of an engine, its replicas and their sync agents."""

    def __init__(self, calls: Calls, timeouts: Timeouts | None = None) -> None:
        self._calls = calls
        self._timeouts = timeouts or Timeouts()

    async def forward(self, engine: Engine, method: str, failure: str, request: Message) -> Any:
        """Call a method of the controller."""
        target = Target(engine.address, engine.volume, engine.name)
        return await self._calls.call(target, _CONTROLLER[method], request, failure, self._timeouts.call)

    async def replicas(self, engine: Engine) -> list[Replica]:
        """Return the replicas of an engine."""
        failure = f"failed to list replicas for volume {engine.address}"
        told = await self.forward(engine, "ReplicaList", failure, _EMPTY)
        # A mode that nobody knows yet is none in which a replica can be used.
        return [
            Replica(each.address.address, _MODES.get(each.mode, Mode.ERR), engine.volume)
            for each in told.replicas
        ]

    async def replica(self, replica: Replica) -> ReplicaInfo:
        """Return what a replica tells of itself."""
        failure = f"failed to get replica {_place(replica)}"
        return _info((await self._replica(replica, "ReplicaGet", failure)).replica)

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
        request = syncagent_pb2.SnapshotHashStatusRequest(snapshot_name=snapshot)
        failure = f"failed to get the checksum of snapshot {snapshot} on {replica.address}"
        return _read(HashStatus, await self._agent(replica, "SnapshotHashStatus", failure, request))

    async def _status(self, kind: type[T], replica: Replica, method: str, what: str) -> T:
        failure = f"failed to get {what} status of {replica.address}"
        return _read(kind, await self._agent(replica, method, failure))

    async def _replica(self, replica: Replica, method: str, failure: str, request: Message = _EMPTY) -> Any:
        target = _target(replica, 0, failure)
        return await self._calls.call(target, _REPLICA[method], request, failure, self._timeouts.call)

    async def _agent(
        self,
        replica: Replica,
        method: str,
        failure: str,
        request: Message = _EMPTY,
        within: float | None = None,
    ) -> Any:
        target = _target(replica, SYNC_AGENT_OFFSET, failure)
        within = self._timeouts.call if within is None else within
        return await self._calls.call(target, _SYNC_AGENT[method], request, failure, within)


def _target(replica: Replica, offset: int, failure: str) -> Target:
    """Return who is `offset` ports above a replica.

    Raises:
        UpstreamError: if the engine has told of an address that is none.
    """
    try:
        address = engine_address(replica.address, offset)
    except InvalidArgumentError as error:
        raise UpstreamError("UNKNOWN", f"{failure}: {error}") from error
    return Target(str(address), replica.volume, replica.name)


def _place(replica: Replica) -> str:
    return replica.address.removeprefix("tcp://")


def _read(kind: type[T], message: Any) -> T:
    """Return a message as a value whose fields have the same names."""
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    values = {field.name: getattr(message, field.name) for field in fields}
    scalars = (str, int, bool)
    return kind(**{name: each if isinstance(each, scalars) else tuple(each) for name, each in values.items()})


def _info(told: replica_pb2.Replica) -> ReplicaInfo:
    return ReplicaInfo(
        rebuilding=told.rebuilding,
        state=told.state,
        size=int(told.size) if told.size.isascii() and told.size.isdecimal() else 0,
        backing_file=told.backing_file,
        disks={name: _disk(disk) for name, disk in told.disks.items()},
    )


def _disk(told: replica_pb2.DiskInfo) -> Disk:
    return Disk(
        name=told.name,
        parent=told.parent,
        children=dict(told.children),
        removed=told.removed,
        user_created=told.user_created,
        created=told.created,
        size=told.size,
        labels=dict(told.labels),
    )
