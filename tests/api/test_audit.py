"""What leaves an entry in the audit trail, and what would only repeat the one before."""

import asyncio
import contextlib
from typing import Any

import grpc.aio
import pytest
from google.protobuf import json_format

from instance_manager.api.interceptors.audit import MOST_SETTINGS, LatestSettings
from instance_manager.api.interceptors.call import Call
from instance_manager.app.audit import AuditEntry
from instance_manager.pb.imrpc import instance_pb2
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import of, served_proxy
from tests.support.service_client import WITHIN


def set_level(level: str, *, engine: int = 0, arrived: bool = True) -> Call:
    request = instance_pb2.LogSetLevelRequest(level=level, data_engine=engine)  # type: ignore[arg-type]
    context: Any = None
    return Call(context, arrived=arrived, digest=request.SerializeToString(), request=request)


def test_a_setting_leaves_an_entry_when_another_outcome_comes_of_it() -> None:
    latest = LatestSettings()
    codes = ["OK", "UNAVAILABLE", "INTERNAL", "OK", "UNAVAILABLE"]
    told = [code for code in codes for _ in range(3) if not latest.repeats(set_level("info"), code)]
    assert told == codes


def test_what_is_refused_changes_nothing_of_what_is_set() -> None:
    latest = LatestSettings()
    calls = [("info", "OK"), ("loud", "INVALID_ARGUMENT")] * 3
    told = [call for call in calls if not latest.repeats(set_level(call[0]), call[1])]
    assert told == calls[:2]


@pytest.mark.parametrize("code", ["CANCELLED", "PERMISSION_DENIED", "UNAUTHENTICATED"])
def test_one_that_is_about_its_caller_always_leaves_an_entry(code: str) -> None:
    latest = LatestSettings()
    assert not any(latest.repeats(set_level("info"), code) for _ in range(3))


def test_so_does_one_that_was_refused_unread() -> None:
    latest = LatestSettings()
    assert not any(latest.repeats(set_level("info", arrived=False), "RESOURCE_EXHAUSTED") for _ in range(3))


def test_engines_that_do_not_exist_are_not_remembered_without_end() -> None:
    latest = LatestSettings()
    for engine in range(1000):
        latest.repeats(set_level("info", engine=engine), "INVALID_ARGUMENT")
    assert len(latest) <= MOST_SETTINGS


R2 = "vol1-r-2"


async def entry_of(engine: EngineProcess, method: str, **fields: Any) -> AuditEntry:
    """Return the entry that a call of the proxy leaves, which may fail."""
    async with served_proxy() as served:
        which = json_format.MessageToDict(of(engine))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await served.client.call(method, {"proxy_engine_request": which} | fields)
        async with asyncio.timeout(WITHIN):
            while not served.trail.entries():  # noqa: ASYNC110 - the error arrives before the end of the call
                await asyncio.sleep(0)
        (entry,) = served.trail.entries()
    assert (entry.name, entry.method) == (engine.name, f"imrpc.ProxyEngineService/{method}")
    return entry


@pytest.mark.parametrize(
    ("method", "fields", "subject"),
    [
        ("SnapshotRemove", {"names": ["s1", "s2", "s 3"]}, "names=s1,s2,'s 3'"),
        ("SnapshotRevert", {"name": "s1"}, "name=s1"),
        ("SnapshotRevert", {"name": "s1 mode=RW"}, "name='s1 mode=RW'"),
        ("SnapshotRevert", {"name": "x" * 1000}, f"name={'x' * 251}"),
        ("SnapshotPurge", {"skip_if_in_progress": True}, ""),
        ("VolumeSnapshot", {"snapshot_volume": {"name": "s1", "labels": {"k": "v"}}}, "name=s1"),
        ("VolumeExpand", {"expand": {"size": 1 << 30}}, f"size={1 << 30}"),
        ("VolumeSnapshotMaxCountSet", {"count": {"count": 0}}, "count=0"),
        ("VolumeUnmapMarkSnapChainRemovedSet", {"unmap_mark_snap": {"enabled": False}}, "enabled=False"),
        (
            "ReplicaModeUpdate",
            {"replica_address": "tcp://h:1", "mode": "ERR"},
            "replica_address=tcp://h:1 mode=ERR",
        ),
        (
            "SnapshotBackup",
            {"backup_name": "b1", "snapshot_name": "s1", "envs": ["AWS_CERT=hunter2"]},
            "backup_name=b1 snapshot_name=s1",
        ),
    ],
)
async def test_a_change_of_an_engine_says_what_of_it(
    engine: EngineProcess, method: str, fields: dict[str, Any], subject: str
) -> None:
    assert (await entry_of(engine, method, **fields)).subject == subject


async def test_the_removal_of_a_replica_says_which(engine: EngineProcess) -> None:
    address = engine.replicas[R2]
    entry = await entry_of(engine, "ReplicaRemove", replica_address=address, replica_name=R2)
    assert (entry.code, entry.detail) == ("OK", "")
    assert entry.subject == f"replica_address={address} replica_name={R2}"


async def test_a_remount_says_of_which_volume() -> None:
    async with served_proxy() as served:
        await served.client.call("RemountReadOnlyVolume", {"volume_name": "vol1"})
        (entry,) = served.trail.entries()
    assert (entry.code, entry.subject) == ("OK", "volume_name=vol1")


async def test_a_restore_that_was_not_begun_says_why(engine: EngineProcess) -> None:
    entry = await entry_of(engine, "BackupRestore", url="vfs:///b?backup=b1", target="vfs:///b")
    assert entry.code == "OK"
    assert "cannot find vfs:///b?backup=b1 in backupstore" in entry.detail
