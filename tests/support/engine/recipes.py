"""Changes of an engine in whose middle a daemon can be killed, and what a manager does then."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from tests.support.engine.manager import WITHIN, Manager

SIZE = 16 << 20
BACKUP = "vfs:///b?backup=b1&volume=vol1"
FIRST, SECOND, NEW = "vol1-r-1", "vol1-r-2", "vol1-r-3"
ENGINE = "controller"
NEVER, DONE, ON = "it was not done", "it was done", "it goes on"
"""What the engine did of the inner call at which the daemon was killed."""
HARMLESS = ("already in progress", "already restored backup")
"""What a manager takes for success when a replica refuses to restore."""

Fields = Callable[[Manager], Mapping[str, Any]]
Step = Callable[[Manager], Awaitable[Any]]


async def nothing(_: Manager) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Recipe:
    """A change that takes several calls of the engine."""

    name: str
    method: str
    steps: tuple[tuple[str, str], ...]
    """Places and inner methods at which the daemon is killed."""
    then: Callable[[Manager, str], Awaitable[None]]
    """What the manager does next, by what the engine did."""
    fields: Fields = lambda _: {}
    before: Step = nothing
    work: str = ""
    """What goes on in the sync agent, by its name for orders; the last step begins it."""
    waits: bool = False
    """Whether the inner call returns when that work is done."""


async def two_snapshots(manager: Manager) -> None:
    await manager.engine.tell(snapshots=2)


async def marked_snapshot(manager: Manager) -> None:
    await manager.engine.tell(snapshots=3)
    await manager.call("SnapshotRemove", names=["n001"])


async def after_purge(manager: Manager, _: str) -> None:
    assert not any(each.error for each in (await manager.call("SnapshotPurgeStatus")).status.values())
    await manager.engine.tell(release="purge")
    async with asyncio.timeout(WITHIN):
        while any(each.is_purging for each in (await manager.call("SnapshotPurgeStatus")).status.values()):
            pass
    await manager.call("SnapshotPurge", skip_if_in_progress=True)
    await manager.settled("SnapshotPurgeStatus")
    assert set(await manager.snapshots()) == {"volume-snap-n000.img", "volume-snap-n002.img"}


async def after_remove(manager: Manager, _: str) -> None:
    assert "n000" in (await manager.call("SnapshotList")).disks
    await manager.call("SnapshotRemove", names=["n000"])
    assert await manager.snapshots() == {"volume-snap-n000.img": True, "volume-snap-n001.img": False}


async def after_hash(manager: Manager, did: str) -> None:
    if did == ON:
        assert "in_progress" in await manager.states("SnapshotHashStatus", snapshot_name="n000")
        with pytest.raises(grpc.aio.AioRpcError, match="cannot request hashing snapshot"):
            await manager.call("SnapshotHash", snapshot_name="n000")
        await manager.engine.tell(release="hash")
        await manager.settled("SnapshotHashStatus", snapshot_name="n000")
    await manager.call("SnapshotHash", snapshot_name="n000", rehash=True)
    await manager.settled("SnapshotHashStatus", snapshot_name="n000")
    told = (await manager.call("SnapshotHashStatus", snapshot_name="n000")).status.values()
    assert len({each.checksum for each in told}) == 1


async def source_snapshot(manager: Manager) -> None:
    await manager.source.renew()
    await manager.source.tell(snapshots=1)


def clone(manager: Manager) -> Mapping[str, Any]:
    source = manager.source
    return {
        "from_engine_address": source.address,
        "from_engine_name": source.name,
        "from_volume_name": source.volume,
        "snapshot_name": "n000",
    }


async def after_clone(manager: Manager, did: str) -> None:
    states = await manager.states("SnapshotCloneStatus")
    assert "error" not in states
    if did == ON:
        assert "in_progress" in states
        await manager.engine.tell(release="clone")
        async with asyncio.timeout(WITHIN):
            while "in_progress" in (states := await manager.states("SnapshotCloneStatus")):
                pass
    if states != {"complete"}:  # the daemon had perhaps asked only one of the replicas
        await manager.call("SnapshotClone", **clone(manager))
        await manager.settled("SnapshotCloneStatus")
    assert set(await manager.snapshots()) == {"volume-snap-n000.img"}


def backup(name: str) -> Mapping[str, Any]:
    return {"backup_name": name, "snapshot_name": "n000", "backup_target": "vfs:///b"}


async def after_backup(manager: Manager, did: str) -> None:
    told = await manager.call("SnapshotBackupStatus", backup_name="b1")
    if did == NEVER:
        assert "backup not found b1" in told.error
        await manager.call("SnapshotBackup", **backup("b2"))
        told = await manager.call("SnapshotBackupStatus", backup_name="b2")
    if did == ON:
        assert told.state == "in_progress"
        await manager.engine.tell(release="backup")
        async with asyncio.timeout(WITHIN):
            while told.state == "in_progress":
                told = await manager.call("SnapshotBackupStatus", backup_name="b1")
    assert (told.state, told.error) == ("complete", "")
    await manager.snapshots()


ENVS = ["AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter2"]
RESTORE = {"url": BACKUP, "target": "vfs:///b", "volume_name": "vol1", "envs": ENVS}


async def after_restore(manager: Manager, did: str) -> None:
    told = (await manager.call("BackupRestore", **RESTORE)).taskError
    if b"found more than 1 snapshot" in told:  # which it has begun to purge
        await manager.settled("SnapshotPurgeStatus")
        told = (await manager.call("BackupRestore", **RESTORE)).taskError
    for each in json.loads(told or b'{"ReplicaErrors":[]}')["ReplicaErrors"]:
        assert any(text in each["Message"] for text in HARMLESS)
    if did == ON:
        assert "in_progress" in await manager.states("BackupRestoreStatus")
        await manager.engine.tell(release="restore")
    await manager.settled("BackupRestoreStatus")
    assert len(await manager.snapshots()) == 1


async def purgeable_snapshots(manager: Manager) -> None:
    await manager.engine.tell(snapshots=3)
    await manager.call("SnapshotRemove", names=["n000", "n001"])


async def smaller_replica(manager: Manager) -> None:
    await manager.engine.tell(snapshots=2)
    await manager.engine.add(NEW)
    await manager.engine.tell(put="size", of=NEW, value=SIZE // 2)


def addition(manager: Manager) -> Mapping[str, Any]:
    return {"replica_address": manager.engine.replicas[NEW], "replica_name": NEW}


async def add_again(manager: Manager, **fields: Any) -> None:
    """Take the replica out, start its process anew, and add it again."""
    await manager.call("ReplicaRemove", replica_address=fields["replica_address"])
    await manager.engine.tell(put="state", of=fields["replica_name"], value="closed")
    await manager.engine.tell(release="rebuild")
    await manager.call("ReplicaAdd", **fields)


async def after_add(manager: Manager, did: str) -> None:
    if did == ON:
        (told,) = (await manager.call("ReplicaRebuildingStatus")).status.values()
        assert told.is_rebuilding
    await add_again(manager, **addition(manager))
    assert set(await manager.modes()) == {FIRST, SECOND, NEW}
    await manager.snapshots()


async def new_replica(manager: Manager) -> None:
    await manager.engine.add(NEW)


def restored_addition(manager: Manager) -> Mapping[str, Any]:
    return {**addition(manager), "restore": True}


async def after_restored_add(manager: Manager, _: str) -> None:
    await add_again(manager, **restored_addition(manager))
    assert (await manager.modes())[NEW] == "WO"
    await manager.call("ReplicaVerifyRebuild", **addition(manager))
    assert await manager.snapshots() == {}


async def no_replica(manager: Manager) -> None:
    for name in (FIRST, SECOND):
        await manager.call("ReplicaRemove", replica_address=manager.engine.replicas[name])


def first_addition(manager: Manager) -> Mapping[str, Any]:
    size = {"size": str(SIZE), "current_size": str(SIZE)}
    return {**size, "replica_address": manager.engine.replicas[FIRST], "replica_name": FIRST}


async def after_first_add(manager: Manager, did: str) -> None:
    assert set(await manager.modes()) == ({FIRST} if did == DONE else set())
    await add_again(manager, **first_addition(manager))
    assert await manager.snapshots() == {}


def removal(manager: Manager) -> Mapping[str, Any]:
    return {"replica_address": manager.engine.replicas[SECOND], "replica_name": SECOND}


async def after_removal(manager: Manager, _: str) -> None:
    await manager.call("ReplicaRemove", **removal(manager))
    assert set(await manager.modes()) == {FIRST}
    await manager.snapshots()


async def after_expansion(manager: Manager, _: str) -> None:
    await manager.call("VolumeExpand", expand={"size": 2 * SIZE})
    assert (await manager.call("VolumeGet")).volume.size == 2 * SIZE
    await manager.snapshots()


async def after_snapshot(manager: Manager, did: str) -> None:
    names = (await manager.call("SnapshotList")).disks
    assert ("s1" in names) == (did == DONE)
    if "s1" not in names:
        await manager.call("VolumeSnapshot", snapshot_volume={"name": "s1"})
    assert await manager.snapshots() == {"volume-snap-s1.img": False}


async def after_revert(manager: Manager, _: str) -> None:
    await manager.call("SnapshotRevert", name="n000")
    assert (await manager.call("SnapshotList")).disks["volume-head"].parent == "n000"
    await manager.snapshots()


RECIPES = (
    Recipe(
        "purge",
        "SnapshotPurge",
        ((SECOND, "SnapshotPurge"), (FIRST, "SnapshotPurge")),
        after_purge,
        before=marked_snapshot,
        work="purge",
    ),
    Recipe(
        "remove a snapshot",
        "SnapshotRemove",
        tuple(
            (each, method)
            for each in (FIRST, SECOND)
            for method in ("DiskMarkAsRemoved", "SnapshotHashCancel")
        ),
        after_remove,
        lambda _: {"names": ["n000"]},
        two_snapshots,
    ),
    Recipe(
        "hash",
        "SnapshotHash",
        ((SECOND, "SnapshotHash"), (FIRST, "SnapshotHash")),
        after_hash,
        lambda _: {"snapshot_name": "n000"},
        two_snapshots,
        work="hash",
    ),
    Recipe(
        "clone",
        "SnapshotClone",
        ((SECOND, "SnapshotClone"), (FIRST, "SnapshotClone")),
        after_clone,
        clone,
        source_snapshot,
        work="clone",
        waits=True,
    ),
    Recipe(
        "backup",
        "SnapshotBackup",
        ((FIRST, "BackupCreate"),),
        after_backup,
        lambda _: backup("b1"),
        two_snapshots,
        work="backup",
    ),
    Recipe(
        "restore",
        "BackupRestore",
        ((SECOND, "BackupRestore"), (FIRST, "BackupRestore")),
        after_restore,
        lambda _: RESTORE,
        work="restore",
    ),
    Recipe(
        "purge before a restore",
        "BackupRestore",
        ((SECOND, "SnapshotPurge"), (FIRST, "SnapshotPurge")),
        after_restore,
        lambda _: RESTORE,
        purgeable_snapshots,
    ),
    Recipe(
        "add a replica",
        "ReplicaAdd",
        (
            *((NEW, each) for each in ("ReplicaOpen", "ReplicaExpand", "ReplicaClose")),
            (ENGINE, "ControllerReplicaCreate"),
            (NEW, "RebuildingSet"),
            (ENGINE, "ReplicaPrepareRebuild"),
            (NEW, "ReplicaReload"),
            (ENGINE, "ReplicaVerifyRebuild"),
            (NEW, "FilesSync"),
        ),
        after_add,
        addition,
        smaller_replica,
        work="rebuild",
        waits=True,
    ),
    Recipe(
        "add one to restore to",
        "ReplicaAdd",
        ((NEW, "ReplicaClose"), (ENGINE, "ControllerReplicaCreate")),
        after_restored_add,
        restored_addition,
        new_replica,
    ),
    Recipe(
        "add the first one",
        "ReplicaAdd",
        ((ENGINE, "VolumeStart"),),
        after_first_add,
        first_addition,
        no_replica,
    ),
    Recipe(
        "remove a replica",
        "ReplicaRemove",
        ((SECOND, "SnapshotHashCancel"), (ENGINE, "ReplicaDelete")),
        after_removal,
        removal,
        two_snapshots,
    ),
    Recipe(
        "expand",
        "VolumeExpand",
        ((ENGINE, "VolumeExpand"),),
        after_expansion,
        lambda _: {"expand": {"size": 2 * SIZE}},
    ),
    Recipe(
        "snapshot",
        "VolumeSnapshot",
        ((ENGINE, "VolumeSnapshot"),),
        after_snapshot,
        lambda _: {"snapshot_volume": {"name": "s1"}},
    ),
    Recipe(
        "revert",
        "SnapshotRevert",
        ((ENGINE, "VolumeRevert"),),
        after_revert,
        lambda _: {"name": "n000"},
        two_snapshots,
    ),
)
