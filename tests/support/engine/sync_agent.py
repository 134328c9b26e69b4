# ruff: noqa: N802 - the methods' own names
"""SyncAgentService of a replica: what takes time progresses on demand, and is done at once otherwise."""

import asyncio
import hashlib
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from instance_manager.pb.ptypes import replica_pb2
from instance_manager.pb.ptypes import syncagent_pb2 as pb
from tests.support.engine.disks import Disk, RefusedError, snapshot_file
from tests.support.engine.replica import Replica

DRIVERS = {"s3", "nfs", "cifs", "azblob", "vfs"}
COMPLETE, IN_PROGRESS = "complete", "in_progress"


class Holds:
    """What was told to wait: `purge`, `hash`, `cancel`, `rebuild`, `clone`, `backup` or `restore`."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def hold(self, work: str) -> None:
        """Let a work wait, from its next time on, until it is released."""
        self._events.setdefault(work, asyncio.Event())

    def release(self, work: str) -> None:
        """Let a work be completed."""
        if event := self._events.pop(work, None):
            event.set()

    def clear(self) -> None:
        """Release everything."""
        for work in tuple(self._events):
            self.release(work)

    async def passed(self, work: str) -> None:
        """Wait until a work may be completed."""
        if event := self._events.get(work):
            await event.wait()


class SyncAgent:
    """The methods of SyncAgentService."""

    def __init__(self, replica: Replica, known: Mapping[str, Replica], folder: str, holds: Holds) -> None:
        self._replica = replica
        self._known = known
        self._folder = folder
        self._holds = holds
        self._tasks: set[asyncio.Task[None]] = set()
        self.purge = pb.SnapshotPurgeStatusResponse()
        self.rebuild = pb.ReplicaRebuildStatusResponse()
        self.clone = pb.SnapshotCloneStatusResponse()
        self.restore = pb.RestoreStatusResponse()
        self.hashes: dict[str, pb.SnapshotHashStatusResponse] = {}
        self.backups: dict[str, pb.BackupStatusResponse] = {}

    async def _run(self, work: str, status: Any, finish: Callable[[], None], held: int) -> None:
        """Complete a work now, or in the background when it is released."""

        def done() -> None:
            finish()
            status.state = COMPLETE
            if hasattr(status, "progress"):
                status.progress = 100

        async def later() -> None:
            await self._holds.passed(work)
            done()

        status.state = IN_PROGRESS
        if hasattr(status, "progress"):
            status.progress = held
        task = asyncio.create_task(later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # What is not held is completed before the answer, so that tests need not wait.
        await asyncio.sleep(0)

    async def SnapshotPurge(self, _: Any) -> None:
        if self.purge.is_purging:
            raise RefusedError("cannot initiate purge because it is already purging")
        self.purge = pb.SnapshotPurgeStatusResponse(is_purging=True)

        def finish() -> None:
            self._replica.disks.purge()
            self.purge.is_purging = False

        await self._run("purge", self.purge, finish, 40)

    def SnapshotPurgeStatus(self, _: Any) -> pb.SnapshotPurgeStatusResponse:
        return self.purge

    async def SnapshotHash(self, request: pb.SnapshotHashRequest) -> None:
        name = request.snapshot_name
        status = self.hashes[name] = pb.SnapshotHashStatusResponse()

        def finish() -> None:
            if snapshot_file(name) in self._replica.disks.files:
                status.checksum = hashlib.sha256(name.encode()).hexdigest()[:16]

        await self._run("hash", status, finish, 0)
        if snapshot_file(name) not in self._replica.disks.files:
            status.state = "error"
            status.error = f"stat {self._folder}/{snapshot_file(name)}: no such file or directory"

    def SnapshotHashStatus(self, request: pb.SnapshotHashStatusRequest) -> pb.SnapshotHashStatusResponse:
        file = f"{self._folder}/{snapshot_file(request.snapshot_name)}.checksum"
        absent = pb.SnapshotHashStatusResponse(state="error", error=f"open {file}: no such file or directory")
        return self.hashes.get(request.snapshot_name, absent)

    async def SnapshotHashCancel(self, request: pb.SnapshotHashCancelRequest) -> None:
        await self._holds.passed("cancel")
        self.hashes.pop(request.snapshot_name, None)

    def SnapshotHashLockState(self, _: Any) -> pb.SnapshotHashLockStateResponse:
        held = any(each.state == IN_PROGRESS for each in self.hashes.values())
        return pb.SnapshotHashLockStateResponse(is_locked=held)

    async def FilesSync(self, request: pb.FilesSyncRequest) -> None:
        source = self._known[request.from_address]
        self.rebuild = pb.ReplicaRebuildStatusResponse(
            is_rebuilding=True,
            state=IN_PROGRESS,
            progress=30,
            from_replica_address_list=[request.from_address],
        )
        await self._holds.passed("rebuild")
        wanted = {each.to_file_name for each in request.sync_file_info_list}
        self._replica.copied = {name: disk for name, disk in source.disks.snapshots.items() if name in wanted}
        self.rebuild.is_rebuilding, self.rebuild.state, self.rebuild.progress = False, COMPLETE, 100

    def ReplicaRebuildStatus(self, _: Any) -> pb.ReplicaRebuildStatusResponse:
        return self.rebuild

    async def SnapshotClone(self, request: pb.SnapshotCloneRequest) -> None:
        name, source = request.snapshot_file_name, request.from_address
        async with grpc.aio.insecure_channel(source.removeprefix("tcp://")) as channel:
            ask: Any = channel.unary_unary(
                "/ptypes.ReplicaService/ReplicaGet",
                request_serializer=empty_pb2.Empty.SerializeToString,
                response_deserializer=replica_pb2.ReplicaGetResponse.FromString,
            )
            found = await ask(empty_pb2.Empty())
        if snapshot_file(name) not in found.replica.disks:
            raise RefusedError(f"cannot find snapshot {name} in the source replica {source}")
        self.clone = pb.SnapshotCloneStatusResponse(
            is_cloning=True,
            state=IN_PROGRESS,
            progress=50,
            from_replica_address=source,
            snapshot_name=name,
        )
        await self._holds.passed("clone")
        self._replica.disks.take({snapshot_file(name): Disk("")})
        self.clone.is_cloning, self.clone.state, self.clone.progress = False, COMPLETE, 100

    def SnapshotCloneStatus(self, _: Any) -> pb.SnapshotCloneStatusResponse:
        return self.clone

    async def BackupCreate(self, request: pb.BackupCreateRequest) -> pb.BackupCreateResponse:
        driver = urllib.parse.urlsplit(request.backup_target).scheme
        if driver not in DRIVERS:
            raise RefusedError(f"driver {driver} is not supported")
        name = request.backup_name
        status = self.backups[name] = pb.BackupStatusResponse(snapshot_name=request.snapshot_file_name)

        def finish() -> None:
            status.backup_url = f"{request.backup_target}?backup={name}&volume={request.volume_name}"

        await self._run("backup", status, finish, 0)
        return pb.BackupCreateResponse(backup=name)

    def BackupStatus(self, request: pb.BackupStatusRequest) -> pb.BackupStatusResponse:
        if request.backup not in self.backups:
            raise RefusedError(f"backup not found {request.backup}")
        return self.backups[request.backup]

    async def BackupRestore(self, request: pb.BackupRestoreRequest) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.backup).query)
        name = query.get("backup", [""])[0]
        if self.restore.is_restoring:
            raise RefusedError(
                "error starting backup restore: "
                "cannot initiate backup restore as there is one already in progress"
            )
        if self.restore.last_restored == name:
            raise RefusedError(f"error starting backup restore: already restored backup {name}")
        self.restore = pb.RestoreStatusResponse(
            is_restoring=True,
            dest_file_name=request.snapshot_disk_name,
            backup_url=request.backup,
            current_restoring_backup=name,
        )

        def finish() -> None:
            self.restore.is_restoring, self.restore.last_restored = False, name
            self.restore.current_restoring_backup = ""
            self._replica.disks.take({request.snapshot_disk_name: Disk("")})

        await self._run("restore", self.restore, finish, 20)

    def RestoreStatus(self, _: Any) -> pb.RestoreStatusResponse:
        return self.restore
