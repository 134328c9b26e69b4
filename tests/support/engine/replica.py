# ruff: noqa: N802 - the methods' own names
"""A replica: its files, and ReplicaService."""

from typing import Any

from instance_manager.pb.ptypes import replica_pb2 as pb
from tests.support.engine.disks import Disks, RefusedError


class Replica:
    """The methods of ReplicaService; the controller of the tests calls the others."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.disks = Disks()
        self.state = "closed"
        self.rebuilding = False
        self.copied: dict[str, Any] = {}
        """Files that FilesSync has brought; in use after a reload."""

    def open(self) -> None:
        """Open the files."""
        self.state = "open"

    def _to_wire(self) -> pb.Replica:
        return pb.Replica(
            rebuilding=self.rebuilding,
            head=self.disks.head,
            parent=self.disks.files[self.disks.head].parent,
            size=str(self.size),
            sector_size=512,
            backing_file=self.disks.backing_file,
            state=self.state,
            chain=list(reversed(self.disks.files)),
            disks=self.disks.to_wire(),
        )

    def ReplicaGet(self, _: Any) -> pb.ReplicaGetResponse:
        return pb.ReplicaGetResponse(replica=self._to_wire())

    def ReplicaOpen(self, _: pb.ReplicaOpenRequest) -> pb.ReplicaOpenResponse:
        self.open()
        return pb.ReplicaOpenResponse(replica=self._to_wire())

    def ReplicaClose(self, _: Any) -> pb.ReplicaCloseResponse:
        self.state = "closed"
        return pb.ReplicaCloseResponse(replica=self._to_wire())

    def ReplicaReload(self, _: Any) -> pb.ReplicaReloadResponse:
        if self.copied:
            self.disks.take(self.copied)
            self.copied = {}
        return pb.ReplicaReloadResponse(replica=self._to_wire())

    def ReplicaExpand(self, request: pb.ReplicaExpandRequest) -> pb.ReplicaExpandResponse:
        if self.state == "closed":
            raise RefusedError("cannot expand a replica that is closed")
        self.size = request.size
        return pb.ReplicaExpandResponse(replica=self._to_wire())

    def DiskMarkAsRemoved(self, request: pb.DiskMarkAsRemovedRequest) -> pb.DiskMarkAsRemovedResponse:
        self.disks.mark_removed(request.name)
        return pb.DiskMarkAsRemovedResponse(replica=self._to_wire())

    def RebuildingSet(self, request: pb.RebuildingSetRequest) -> pb.RebuildingSetResponse:
        if self.state == "closed":
            raise RefusedError("cannot set rebuilding of a replica that is closed")
        self.rebuilding = request.rebuilding
        return pb.RebuildingSetResponse(replica=self._to_wire())
