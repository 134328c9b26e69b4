"""Replicas for the use cases; implements `app.engine.Replicas`."""

from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.adapters.engine.calls import Calls, Timeouts, host_port, replica_target
from instance_manager.adapters.engine.values import info
from instance_manager.core.engine import Replica, ReplicaInfo
from instance_manager.pb.ptypes import replica_pb2 as pb

_METHODS = pb.DESCRIPTOR.services_by_name["ReplicaService"].methods_by_name
_EMPTY = empty_pb2.Empty()


class GrpcReplicas:
    """Calls ReplicaService."""

    def __init__(self, calls: Calls, timeouts: Timeouts) -> None:
        self._calls = calls
        self._timeouts = timeouts

    async def get(self, replica: Replica) -> ReplicaInfo:
        """Return what a replica tells of itself."""
        told = await self._call(replica, "ReplicaGet", "get replica {}")
        return info(told.replica, f"failed to get replica {host_port(replica)}")

    async def open(self, replica: Replica) -> None:
        """Open its files."""
        await self._call(replica, "ReplicaOpen", "open replica {}", pb.ReplicaOpenRequest())

    async def close(self, replica: Replica) -> None:
        """Close its files."""
        await self._call(replica, "ReplicaClose", "close replica {}")

    async def reload(self, replica: Replica) -> None:
        """Let it read its files again."""
        await self._call(replica, "ReplicaReload", "reload replica {}")

    async def expand(self, replica: Replica, size: int) -> None:
        """Make it larger, in bytes."""
        await self._call(replica, "ReplicaExpand", "expand replica {}", pb.ReplicaExpandRequest(size=size))

    async def mark_removed(self, replica: Replica, snapshot: str) -> None:
        """Mark a snapshot for the next purge."""
        request = pb.DiskMarkAsRemovedRequest(name=snapshot)
        await self._call(replica, "DiskMarkAsRemoved", "mark a snapshot as removed on replica {}", request)

    async def set_rebuilding(self, replica: Replica, *, rebuilding: bool) -> None:
        """Note whether it is being rebuilt."""
        request = pb.RebuildingSetRequest(rebuilding=rebuilding)
        await self._call(replica, "RebuildingSet", "set rebuilding of replica {}", request)

    async def _call(self, replica: Replica, method: str, doing: str, request: Message = _EMPTY) -> Any:
        failure = f"failed to {doing.format(host_port(replica))}"
        target = replica_target(replica, 0, failure)
        return await self._calls.call(target, _METHODS[method], request, failure, self._timeouts.call)
