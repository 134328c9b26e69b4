# ruff: noqa: N802 - the methods' own names
"""The controller of a volume."""

import uuid
from collections.abc import Mapping
from typing import Any

from instance_manager.pb.ptypes import common_pb2
from instance_manager.pb.ptypes import controller_pb2 as pb
from tests.support.engine.disks import RefusedError, snapshot_file
from tests.support.engine.replica import Replica

WO, RW, ERR = pb.ReplicaMode.WO, pb.ReplicaMode.RW, pb.ReplicaMode.ERR
VERSION = pb.VersionOutput(
    version="v1.12.1-peer",
    gitCommit="1fa902f0",
    cliAPIVersion=12,
    cliAPIMinVersion=8,
    controllerAPIVersion=6,
    controllerAPIMinVersion=4,
    dataFormatVersion=1,
    dataFormatMinVersion=1,
)
FRONTENDS = {"tgt-blockdev", "tgt-iscsi"}
MAX_SNAPSHOTS = 250


class Controller:
    """The methods of ControllerService."""

    def __init__(self, volume: str, size: int, known: Mapping[str, Replica]) -> None:
        self.known = known
        """Every replica that listens, by address, whether it belongs to the volume or not."""
        self.modes: dict[str, Any] = {}
        self.volume = pb.Volume(name=volume, size=size, snapshot_max_count=MAX_SNAPSHOTS)
        self.sync_limit = 1
        self.metrics = pb.Metrics()

    def _members(self, mode: Any = RW) -> dict[str, Replica]:
        return {address: self.known[address] for address, have in self.modes.items() if have == mode}

    def VolumeGet(self, _: Any = None) -> pb.Volume:
        self.volume.replicaCount = len(self.modes)
        return self.volume

    def VolumeStart(self, request: pb.VolumeStartRequest) -> pb.Volume:
        for address in request.replicaAddresses:
            self._find(address).open()
            self.modes[address] = RW
        self.volume.size = request.size
        return self.VolumeGet()

    def _find(self, address: str) -> Replica:
        if address not in self.known:
            raise RefusedError(f"cannot reach {address}")
        return self.known[address]

    def VolumeSnapshot(self, request: pb.VolumeSnapshotRequest) -> pb.VolumeSnapshotReply:
        name = request.name or str(uuid.uuid4())
        self._snapshot(name, user_created=True, labels=dict(request.labels))
        return pb.VolumeSnapshotReply(name=name)

    def _snapshot(self, name: str, *, user_created: bool, labels: dict[str, str]) -> None:
        errors = []
        for address, replica in {**self._members(), **self._members(WO)}.items():
            try:
                replica.disks.snapshot(name, user_created=user_created, labels=labels)
            except RefusedError as error:
                host = address.removeprefix("tcp://")
                errors.append(
                    f"{address}: failed to snapshot replica {host} from remote: "
                    f"rpc error: code = Unknown desc = {error}"
                )
        if errors:
            raise RefusedError("; ".join(errors))

    def VolumeRevert(self, request: pb.VolumeRevertRequest) -> pb.Volume:
        if self.volume.frontendState == "up":
            raise RefusedError(f"volume frontend enabled, cannot revert snapshot {request.name}")
        members = self._members()
        if not all(snapshot_file(request.name) in each.disks.files for each in members.values()):
            raise RefusedError(f"cannot do revert since the target snapshot {request.name} is not found")
        for replica in members.values():
            replica.disks.revert(request.name)
        return self.VolumeGet()

    def VolumeExpand(self, request: pb.VolumeExpandRequest) -> pb.Volume:
        if request.size < self.volume.size:
            raise RefusedError(f"controller cannot be expanded to a smaller size {request.size}")
        self.volume.size = request.size
        for replica in self._members().values():
            replica.size = request.size
        return self.VolumeGet()

    def VolumeFrontendStart(self, request: pb.VolumeFrontendStartRequest) -> pb.Volume:
        name = request.frontend
        if name not in FRONTENDS:
            raise RefusedError(f"failed to find frontend: {name}: unsupported frontend type: {name}")
        self.volume.frontend, self.volume.frontendState = name, "up"
        self.volume.endpoint = f"/dev/longhorn/{self.volume.name}"
        return self.VolumeGet()

    def VolumeFrontendShutdown(self, _: Any) -> pb.Volume:
        self.volume.frontendState = "down" if self.volume.frontend else ""
        self.volume.endpoint = ""
        return self.VolumeGet()

    def VolumeUnmapMarkSnapChainRemovedSet(
        self, request: pb.VolumeUnmapMarkSnapChainRemovedSetRequest
    ) -> pb.Volume:
        self.volume.unmap_mark_snap_chain_removed = request.enabled
        return self.VolumeGet()

    def VolumeSnapshotMaxCountSet(self, request: pb.VolumeSnapshotMaxCountSetRequest) -> pb.Volume:
        self.volume.snapshot_max_count = request.count
        return self.VolumeGet()

    def VolumeSnapshotMaxSizeSet(self, request: pb.VolumeSnapshotMaxSizeSetRequest) -> pb.Volume:
        self.volume.snapshot_max_size = request.size
        return self.VolumeGet()

    def _replica(self, address: str) -> pb.ControllerReplica:
        return pb.ControllerReplica(address=pb.ReplicaAddress(address=address), mode=self.modes[address])

    def ReplicaList(self, _: Any) -> pb.ReplicaListReply:
        return pb.ReplicaListReply(replicas=[self._replica(address) for address in self.modes])

    def ControllerReplicaCreate(self, request: pb.ControllerReplicaCreateRequest) -> pb.ControllerReplica:
        address = request.address
        if address not in self.modes:
            replica = self._find(address)
            if WO in self.modes.values():
                raise RefusedError("can only have one WO replica at a time")
            if replica.state != "closed":
                raise RefusedError(f"a replica in state {replica.state} is not added: it must be closed")
            if request.snapshot_required:
                self._snapshot(str(uuid.uuid4()), user_created=False, labels={})
            replica.open()
            self.modes[address] = request.mode
        return self._replica(address)

    def ReplicaDelete(self, request: pb.ReplicaAddress) -> None:
        self.modes.pop(request.address, None)

    def ReplicaUpdate(self, request: pb.ControllerReplica) -> pb.ControllerReplica:
        self._member(request.address.address)
        self.modes[request.address.address] = request.mode
        return self._replica(request.address.address)

    def _member(self, address: str) -> Replica:
        if address not in self.modes:
            raise RefusedError(f"cannot find replica {address}")
        return self.known[address]

    def ReplicaPrepareRebuild(self, request: pb.ReplicaAddress) -> pb.ReplicaPrepareRebuildReply:
        self._member(request.address)
        if (mode := self.modes[request.address]) != WO:
            raise RefusedError(f"invalid mode {pb.ReplicaMode.Name(mode)} to prepare rebuild")
        source = next(iter(self._members().values()))
        names = [each for file in source.disks.snapshots for each in (file, f"{file}.meta")]
        return pb.ReplicaPrepareRebuildReply(
            replica=self._replica(request.address),
            sync_file_info_list=[
                common_pb2.SyncFileInfo(from_file_name=name, to_file_name=name) for name in names
            ],
        )

    def ReplicaVerifyRebuild(self, request: pb.ReplicaAddress) -> pb.ControllerReplica:
        replica = self._member(request.address)
        source = next(iter(self._members().values()))
        if replica.disks.snapshots.keys() != source.disks.snapshots.keys():
            raise RefusedError(f"the snapshots of {request.address} are not those of the volume")
        self.modes[request.address] = RW
        return self._replica(request.address)

    def ReplicaRebuildConcurrentSyncLimitSet(
        self, request: pb.ReplicaRebuildConcurrentSyncLimitSetRequest
    ) -> None:
        if request.limit <= 0:
            raise RefusedError(
                f"invalid concurrent sync limit {request.limit}, which should be a positive integer"
            )
        self.sync_limit = request.limit

    def ReplicaRebuildConcurrentSyncLimitGet(self, _: Any) -> pb.ReplicaRebuildConcurrentSyncLimitGetReply:
        return pb.ReplicaRebuildConcurrentSyncLimitGetReply(limit=self.sync_limit)

    def VersionDetailGet(self, _: Any) -> pb.VersionDetailGetReply:
        return pb.VersionDetailGetReply(version=VERSION)

    def MetricsGet(self, _: Any) -> pb.MetricsGetReply:
        return pb.MetricsGetReply(metrics=self.metrics)
