"""Backups and restores of v2 volumes, through the proxy."""

import json
from typing import Any

import pytest

from tests.support.engine.served import ProxyClient, served_proxy
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.volume import ADDRESSES, ENGINE, HERE, TCP, THERE, WHICH, asking, make_volume

ENVS = ["AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter2", "AWS_ENDPOINTS=https://s3"]
URL = "s3://b@r/?backup=b1&volume=v"


def backup(**fields: Any) -> dict[str, Any]:
    whole = {
        "backup_name": "b1",
        "snapshot_name": "s1",
        "backup_target": "s3://b@r/",
        "backing_image_name": "bi",
        "backing_image_checksum": "c",
        "labels": {"k": "v"},
        "envs": ENVS,
        "compression_method": "lz4",
        "concurrent_limit": 3,
        "storage_class_name": "sc",
        "parameters": {"backup-mode": "full", "backup-block-size": "2Mi", "other": "x"},
    }
    return asking(**whole | fields)


def restore(**fields: Any) -> dict[str, Any]:
    whole = {"url": URL, "target": "s3://b@r/", "volume_name": "v", "envs": ENVS, "concurrent_limit": 3}
    return asking(**whole | fields)


async def prepare(spdk: SpdkProcess, proxy: ProxyClient, **modes: str) -> None:
    await make_volume(spdk, **modes)
    await proxy.call("VolumeSnapshot", asking(snapshot_volume={"name": "s1"}))
    await spdk.calls()


async def test_a_backup_is_begun_with_all_that_is_asked(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await prepare(spdk, v2_proxy)
    begun = await v2_proxy.call("SnapshotBackup", backup())
    assert (begun.backup_id, begun.replica, begun.is_incremental) == ("b1", ADDRESSES[HERE], True)
    asked = await spdk.request("EngineBackupCreate")
    credential = asked.pop("credential")
    assert sorted(asked.pop("labels")) == [
        "k=v",
        "longhorn.io/backup-parameter.backup-block-size=2Mi",
        "longhorn.io/backup-parameter.backup-mode=full",
    ]
    assert asked == {
        "snapshot_name": "s1",
        "backup_target": "s3://b@r/",
        "volume_name": "v",
        "engine_name": ENGINE,
        "backing_image_name": "bi",
        "backing_image_checksum": "c",
        "backup_name": "b1",
        "compression_method": "lz4",
        "concurrent_limit": 3,
        "storage_class_name": "sc",
    }
    assert credential["AWS_SECRET_ACCESS_KEY"] == "hunter2"
    assert credential["AWS_ENDPOINTS"] == "https://s3"


@pytest.mark.parametrize("method", ["SnapshotBackup", "BackupRestore"])
@pytest.mark.parametrize(
    ("envs", "code"),
    [
        (["LD_PRELOAD=/x"], "INTERNAL"),
        (["nothing"], "INTERNAL"),
        (ENVS[:1], "INVALID_ARGUMENT"),
        (ENVS[1:2], "INVALID_ARGUMENT"),
    ],
)
async def test_credentials_that_are_none_or_incomplete_are_refused(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str, envs: list[str], code: str
) -> None:
    request = (backup if method == "SnapshotBackup" else restore)(envs=envs)
    told, text = await v2_proxy.error(method, request)
    assert told == code
    assert "hunter2" not in text
    assert await spdk.calls() == []


async def test_credentials_hold_for_one_request(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await prepare(spdk, v2_proxy)
    await v2_proxy.call("SnapshotBackup", backup())
    await v2_proxy.call("SnapshotBackup", backup(envs=[], backup_name="b2"))
    credential = (await spdk.request("EngineBackupCreate"))["credential"]
    assert not any(credential.values())


async def test_credentials_are_neither_logged_nor_audited(
    spdk: SpdkProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served_proxy(spdk=spdk.address) as running:
        await running.client.error("SnapshotBackup", backup())
        await running.client.call("BackupRestore", restore())
        entries = running.trail.entries()
    assert [each.name for each in entries] == [ENGINE, ENGINE]
    printed = capsys.readouterr()
    assert "EngineBackupCreate" in printed.out, "calls are logged here"
    assert "hunter2" not in printed.out + printed.err + repr(entries)


async def test_a_backup_that_cannot_be_begun_is_an_error(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await make_volume(spdk)
    code, text = await v2_proxy.error("SnapshotBackup", backup())
    assert code == "INTERNAL"
    assert text.endswith("rpc error: code = NotFound desc = cannot find snapshot s1")


# --- how a backup goes ---


@pytest.mark.parametrize("address", [ADDRESSES[THERE], TCP[THERE]])
async def test_the_replica_that_is_named_tells_of_a_backup(
    spdk: SpdkProcess, v2_proxy: ProxyClient, address: str
) -> None:
    await make_volume(spdk)
    fields = {
        "progress": 40,
        "backup_url": URL,
        "error": "odd",
        "snapshot_name": "s1",
        "state": "in_progress",
        "replica_address": ADDRESSES[THERE],
    }
    await spdk.tell(put="Backup", name=f"b1@{ADDRESSES[THERE]}", fields=fields)
    told = await v2_proxy.call("SnapshotBackupStatus", asking(backup_name="b1", replica_address=address))
    assert {field.name: value for field, value in told.ListFields()} == fields
    asked = {"backup": "b1", "engine_name": ENGINE, "replica_address": ADDRESSES[THERE]}
    assert await spdk.tell(calls=True) == [["EngineBackupStatus", asked]]


async def test_the_first_complete_replica_that_knows_a_backup_tells_of_it(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    await spdk.tell(put="Backup", name=f"b1@{ADDRESSES[THERE]}", fields={"state": "complete"})
    told = await v2_proxy.call("SnapshotBackupStatus", asking(backup_name="b1"))
    assert told.state == "complete"
    assert await spdk.calls() == ["EngineGet", "EngineBackupStatus", "EngineBackupStatus"]
    code, text = await v2_proxy.error("SnapshotBackupStatus", asking(backup_name="b2"))
    assert code == "INTERNAL"
    assert "rpc error: code = NotFound desc = " in text
    await make_volume(spdk, r2="ERR")
    assert (await v2_proxy.error("SnapshotBackupStatus", asking(backup_name="b1")))[0] == "INTERNAL"


async def test_a_replica_that_fails_otherwise_is_not_passed_over(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    await spdk.tell(fail="EngineBackupStatus", code="INTERNAL", message="broken")
    code, text = await v2_proxy.error("SnapshotBackupStatus", asking(backup_name="b1"))
    assert code == "INTERNAL"
    assert text.endswith("rpc error: code = Internal desc = broken")
    assert await spdk.calls() == ["EngineGet", "EngineBackupStatus"]


async def test_without_a_complete_replica_nobody_tells_of_a_backup(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r1="WO", r2="ERR")
    code, text = await v2_proxy.error("SnapshotBackupStatus", asking(backup_name="b1"))
    assert (code, text) == ("INTERNAL", "cannot find a replica in mode RW")


# --- restores ---


async def test_a_restore_is_begun_and_tells_how_it_goes(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await make_volume(spdk)
    assert (await v2_proxy.call("BackupRestore", restore())).taskError == b""
    asked = await spdk.request("EngineBackupRestore")
    assert asked.pop("credential")["AWS_SECRET_ACCESS_KEY"] == "hunter2"
    assert asked == {"backup_url": URL, "engine_name": ENGINE, "concurrent_limit": 3}
    status = (await v2_proxy.call("BackupRestoreStatus", WHICH)).status
    assert status.keys() == set(TCP.values())
    told = {field.name: value for field, value in status[TCP[HERE]].ListFields()}
    assert told == {
        "is_restoring": True,
        "current_restoring_backup": "b1",
        "progress": 40,
        "filename": f"{HERE}-restored",
        "state": "in_progress",
        "backup_url": URL,
    }
    await spdk.tell(finish=True)
    status = (await v2_proxy.call("BackupRestoreStatus", WHICH)).status
    assert {(each.state, each.last_restored) for each in status.values()} == {("complete", "b1")}


async def test_replicas_that_refuse_a_restore_are_told_in_the_form_that_managers_match(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r1="ERR", r2="ERR")
    told = json.loads((await v2_proxy.call("BackupRestore", restore())).taskError)
    assert told == {
        "ReplicaErrors": [
            {"Address": TCP[name], "Message": f"replica {name} is in mode ERR"} for name in (HERE, THERE)
        ]
    }


async def test_a_restore_that_fails_is_told_as_text(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await spdk.tell(fail="EngineBackupRestore", code="UNKNOWN", message="already in progress")
    told = (await v2_proxy.call("BackupRestore", restore())).taskError.decode()
    assert told.endswith("rpc error: code = Unknown desc = already in progress")
