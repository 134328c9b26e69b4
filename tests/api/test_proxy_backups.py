"""How the proxy backs snapshots up and restores backups, on an engine that really listens."""

import asyncio
import json
from typing import Any

import pytest

from instance_manager.api.service import MAX_LARGE_REQUEST_BYTES, MAX_REQUEST_BYTES
from instance_manager.app.engine.completion import MOST_BYTES
from instance_manager.core.backups import BackupVolume
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2, syncagent_pb2
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import Backups, ProxyClient, of, served_proxy
from tests.support.patience import patience

R1, R2 = "vol1-r-1", "vol1-r-2"
SIZE = 16 << 20
URL = "s3://b@r/?backup=b1&volume=old"
TARGET = "s3://b@r/"
ENVS = ["AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter2"]
S3 = 7
"""Variables that are told for S3 beside the key pair."""


async def take(proxy: ProxyClient, engine: EngineProcess, *names: str) -> None:
    for name in names:
        request = pb.EngineVolumeSnapshotRequest(
            proxy_engine_request=of(engine), snapshot_volume=controller_pb2.VolumeSnapshotRequest(name=name)
        )
        await proxy.call("VolumeSnapshot", request)
    await engine.calls()


def backup(engine: EngineProcess, **fields: Any) -> Any:
    whole: dict[str, Any] = {
        "backup_name": "b1",
        "snapshot_name": "s1",
        "backup_target": TARGET,
        "envs": ENVS,
    }
    return pb.EngineSnapshotBackupRequest(proxy_engine_request=of(engine), **(whole | fields))


def status(engine: EngineProcess, **fields: Any) -> Any:
    whole = {"backup_name": "b1"}
    return pb.EngineSnapshotBackupStatusRequest(proxy_engine_request=of(engine), **(whole | fields))


def restore(engine: EngineProcess, **fields: Any) -> Any:
    whole: dict[str, Any] = {
        "url": URL,
        "target": TARGET,
        "envs": ENVS,
        "volume_name": "vol1",
        "concurrent_limit": 3,
    }
    return pb.EngineBackupRestoreRequest(proxy_engine_request=of(engine), **(whole | fields))


async def asked(engine: EngineProcess, method: str) -> list[tuple[str, dict[str, Any]]]:
    return [(place, request) for place, name, request, _ in await engine.calls() if name == method]


async def test_a_backup_is_made_by_the_first_complete_replica(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await take(proxy, engine, "s1")
    await engine.tell(mode="ERR", of=R1)
    fields: dict[str, Any] = {
        "backing_image_name": "bi",
        "backing_image_checksum": "c",
        "compression_method": "lz4",
        "concurrent_limit": 2,
        "storage_class_name": "longhorn",
        "parameters": {"backup-mode": "full"},
    }
    told = await proxy.call("SnapshotBackup", backup(engine, labels={"k": "v"}, **fields))
    assert told == pb.EngineSnapshotBackupProxyResponse(backup_id="b1", replica=engine.replicas[R2])
    [(place, request)] = await asked(engine, "BackupCreate")
    credential = request.pop("credential")
    assert place == R2
    assert request == {
        "snapshot_file_name": "s1",
        "backup_target": TARGET,
        "volume_name": "vol1",
        "labels": ["k=v"],
        "backup_name": "b1",
        **fields,
    }
    assert credential["AWS_SECRET_ACCESS_KEY"] == "hunter2"
    assert len(credential) == S3 + 2


async def test_credentials_hold_for_one_request(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    for half in ENVS:
        code, _ = await proxy.error("SnapshotBackup", backup(engine, envs=[half]))
        assert code == "INVALID_ARGUMENT"
    await proxy.call("SnapshotBackup", backup(engine))
    await proxy.call("SnapshotBackup", backup(engine, envs=[], backup_name="b2"))
    first, second = (request["credential"] for _, request in await asked(engine, "BackupCreate"))
    assert len(first) == S3 + 2
    assert len(second) == S3
    assert not any(second.values())


async def test_credentials_are_neither_logged_nor_audited(
    engine: EngineProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    await engine.tell(fail="BackupCreate", at="*", code="UNKNOWN")
    async with served_proxy(store=Backups(known={URL: "no such backup"})) as served:
        await take(served.client, engine, "s1")
        await served.client.error("SnapshotBackup", backup(engine))
        await served.client.error("SnapshotBackup", backup(engine, envs=["hunter2"]))
        assert (await served.client.call("BackupRestore", restore(engine))).taskError
        assert "hunter2" not in repr(served.trail.entries())
    printed = capsys.readouterr()
    assert "BackupCreate" in printed.out, "calls are logged here"
    assert "hunter2" not in printed.out + printed.err


@pytest.mark.parametrize("character", ["\0", "\n", "%zz"])
async def test_a_url_that_no_program_can_be_given_is_refused(
    engine: EngineProcess, proxy: ProxyClient, character: str
) -> None:
    url = f"s3://hunter2@r/{character}"
    for method, request in (
        ("BackupRestore", restore(engine, url=url)),
        ("BackupRestore", restore(engine, target=url)),
        ("SnapshotBackup", backup(engine, backup_target=url)),
    ):
        code, text = await proxy.error(method, request)
        assert code == "INVALID_ARGUMENT"
        assert "hunter2" not in text
    assert await engine.calls() == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"snapshot_name": "volume-head"}, "cannot backup the head disk in the chain"),
        ({"snapshot_name": "absent"}, "snapshot disk volume-snap-absent.img not found on replica tcp://"),
        (
            {"backup_target": "foo://x/"},
            "failed to create backup to foo://x/ for volume vol1: rpc error: code = Unknown desc = driver",
        ),
    ],
)
async def test_a_backup_that_is_not_begun_says_why(
    engine: EngineProcess, proxy: ProxyClient, fields: dict[str, Any], text: str
) -> None:
    await take(proxy, engine, "s1")
    code, told = await proxy.error("SnapshotBackup", backup(engine, **fields))
    assert code == "INTERNAL"
    assert told.startswith(f"failed to create backup: {text}")


async def test_a_timeout_stays_readable_in_the_message(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    await engine.tell(fail="BackupCreate", at="*", code="DEADLINE_EXCEEDED")
    code, told = await proxy.error("SnapshotBackup", backup(engine))
    assert code == "INTERNAL"
    assert "rpc error: code = DeadlineExceeded desc = told to fail" in told


async def test_a_backup_tells_how_it_goes(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    await engine.tell(hold="backup")
    address = (await proxy.call("SnapshotBackup", backup(engine))).replica
    before = await proxy.call("SnapshotBackupStatus", status(engine))
    assert (before.state, before.snapshot_name, before.replica_address) == ("in_progress", "s1", address)
    await engine.tell(release="backup")
    after = await proxy.call("SnapshotBackupStatus", status(engine, replica_address=address, replica_name=R1))
    assert (after.state, after.progress, after.replica_address) == ("complete", 100, address)
    assert after.backup_url == "s3://b@r/?backup=b1&volume=vol1"


async def test_a_replica_that_was_removed_may_still_tell_of_its_backup(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await take(proxy, engine, "s1")
    address = (await proxy.call("SnapshotBackup", backup(engine))).replica
    remove = pb.EngineReplicaRemoveRequest(proxy_engine_request=of(engine), replica_address=address)
    await proxy.call("ReplicaRemove", remove)
    told = await proxy.call("SnapshotBackupStatus", status(engine, replica_address=address))
    assert told.state == "complete"


async def test_a_replica_that_is_not_complete_is_not_asked_for_a_backup(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(mode="ERR", of=R1)
    code, text = await proxy.error(
        "SnapshotBackupStatus", status(engine, replica_address=engine.replicas[R1])
    )
    assert code == "UNKNOWN"
    assert engine.replicas[R1] in text
    await engine.tell(mode="ERR", of=R2)
    code, text = await proxy.error("SnapshotBackupStatus", status(engine))
    assert (code, text) == ("UNKNOWN", "cannot find a replica in mode RW")


@pytest.mark.parametrize("name", ["", "other"])
async def test_a_backup_that_is_not_told_of_has_an_error(
    engine: EngineProcess, proxy: ProxyClient, name: str
) -> None:
    address = engine.replicas[R2]
    told = await proxy.call(
        "SnapshotBackupStatus", status(engine, replica_address=address, replica_name=name)
    )
    inner = "FailedPrecondition" if name else "Unknown"
    assert told.error.startswith(
        f"Failed to get backup status on {address} for b1: rpc error: code = {inner} desc = "
    )
    assert {field.name for field, _ in told.ListFields()} == {"error", "replica_address"}


async def begun(engine: EngineProcess, size: int = SIZE, **fields: Any) -> str:
    """Try to restore a backup and return what is told of it, which is empty if it is begun."""
    store = Backups(known={URL: BackupVolume("old", size)})
    async with served_proxy(store=store) as served:
        told: bytes = (await served.client.call("BackupRestore", restore(engine, **fields))).taskError
    return told.decode()


def of_replicas(engine: EngineProcess, text: str) -> dict[str, str]:
    """Return the messages of a task error by name of the replica."""
    names = {address: name for name, address in engine.replicas.items()}
    return {names[each["Address"]]: each["Message"] for each in json.loads(text)["ReplicaErrors"]}


async def test_a_backup_is_restored_on_every_replica(engine: EngineProcess, proxy: ProxyClient) -> None:
    store = Backups(known={URL: BackupVolume("old", SIZE)})
    async with served_proxy(store=store) as served:
        told = await served.client.call("BackupRestore", restore(engine))
    assert not told.taskError
    assert store.asked == [(engine.name, URL, dict(each.split("=") for each in ENVS))]
    first, second = sorted(await asked(engine, "BackupRestore"))
    assert (first[0], second[0], first[1]) == (R1, R2, second[1])
    assert first[1]["backup"] == URL
    assert first[1]["concurrent_limit"] == 3
    assert first[1]["credential"]["AWS_SECRET_ACCESS_KEY"] == "hunter2"
    disk = first[1]["snapshot_disk_name"]
    statuses = (await proxy.call("BackupRestoreStatus", of(engine))).status
    assert {each.filename for each in statuses.values()} == {disk}
    assert {each.last_restored for each in statuses.values()} == {"b1"}


async def test_the_next_backup_is_restored_to_the_same_file(engine: EngineProcess) -> None:
    assert not await begun(engine)
    [first, _] = await asked(engine, "BackupRestore")
    told = of_replicas(engine, await begun(engine))
    assert all("already restored backup b1" in each for each in told.values()), "managers look for it"
    [second, _] = await asked(engine, "BackupRestore")
    assert second[1]["snapshot_disk_name"] == first[1]["snapshot_disk_name"]


async def test_a_restore_in_progress_is_told_in_the_words_of_the_replicas(engine: EngineProcess) -> None:
    await engine.tell(hold="restore")
    assert not await begun(engine)
    told = of_replicas(engine, await begun(engine))
    assert told.keys() == {R1, R2}
    assert all("already in progress" in each for each in told.values())


async def test_a_lock_is_told_in_the_words_of_the_replica(engine: EngineProcess) -> None:
    text = "error initiating full backup restore: failed lock"
    await engine.tell(fail="BackupRestore", at=R2, code="UNKNOWN", message=text)
    told = of_replicas(engine, await begun(engine))
    assert told.keys() == {R2}
    assert told[R2].endswith(f"rpc error: code = Unknown desc = {text}")


@pytest.mark.parametrize(
    ("trouble", "method", "text"),
    [
        ({"put": "rebuilding", "of": R2, "value": True}, "", "is rebuilding"),
        ({"fail": "ReplicaGet", "at": R2, "code": "INTERNAL"}, "", "code = Internal"),
        ({"fail": "SnapshotPurgeStatus", "at": R2, "code": "INTERNAL"}, "", "code = Internal"),
        ({"fail": "RestoreStatus", "at": R2, "code": "ABORTED"}, "", "code = Aborted"),
        ({"mode": "ERR", "of": R2}, R1, "is in ERR mode"),
    ],
)
async def test_a_replica_that_cannot_be_restored_is_told_by_its_address(
    engine: EngineProcess, trouble: dict[str, Any], method: str, text: str
) -> None:
    await engine.tell(**trouble)
    told = of_replicas(engine, await begun(engine))
    assert told.keys() == {R2}
    assert text in told[R2]
    assert [place for place, _ in await asked(engine, "BackupRestore")] == ([method] if method else [])


@pytest.mark.parametrize(
    ("size", "fields", "text"),
    [
        (SIZE // 2, {}, "cannot be smaller"),
        (2 * SIZE, {}, "cannot be larger than normal restore volume vol1"),
        (
            SIZE,
            {"need_correct_encrypted_volume_size": True},
            f"The backup volume old size {2 * SIZE} cannot be",
        ),
    ],
)
async def test_a_backup_that_does_not_fit_is_not_restored(
    engine: EngineProcess, size: int, fields: dict[str, Any], text: str
) -> None:
    assert text in await begun(engine, size, **fields)
    assert not await asked(engine, "BackupRestore")


async def test_a_volume_that_is_restored_again_and_again_has_to_grow_first(engine: EngineProcess) -> None:
    assert not await begun(engine)
    assert (await begun(engine, 2 * SIZE)).startswith("need to expand the DR volume")


async def test_a_volume_in_use_is_not_restored(engine: EngineProcess) -> None:
    await engine.tell(volume={"frontendState": "up"})
    assert "frontend" in await begun(engine)


async def test_no_restore_begins_while_snapshots_are_purged(engine: EngineProcess) -> None:
    answer = syncagent_pb2.SnapshotPurgeStatusResponse(is_purging=True)
    await engine.tell(odd="SnapshotPurgeStatus", at=R2, answer=answer.SerializeToString().hex())
    assert await begun(engine) == f"cannot restore while {engine.replicas[R2]} purges snapshots"


async def test_snapshots_in_the_way_are_purged(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1", "s2")
    assert (await begun(engine)).startswith("found more than 1 snapshot in the replicas")
    assert len(await asked(engine, "SnapshotPurge")) == 2


async def test_an_engine_that_is_away_is_told_as_text(engine: EngineProcess) -> None:
    await engine.tell(fail="VolumeGet", at="controller", code="UNAVAILABLE")
    assert "rpc error: code = Unavailable" in await begun(engine)


async def test_a_restore_without_a_complete_replica_has_nothing_to_restore_to(engine: EngineProcess) -> None:
    for name in (R1, R2):
        await engine.tell(mode="ERR", of=name)
    assert await begun(engine) == "cannot restore: the replicas have no files"


CERTIFICATES = "c" * (230 << 10)
"""As many as a system trusts."""


@pytest.mark.parametrize("times", [1, 4])
async def test_certificates_are_told_however_many_they_are(engine: EngineProcess, times: int) -> None:
    envs = [*ENVS, f"AWS_CERT={CERTIFICATES * times}"]
    store = Backups({URL: BackupVolume("old", SIZE)})
    async with served_proxy(store=store) as served:
        await take(served.client, engine, "s1")
        await served.client.call("SnapshotBackup", backup(engine, envs=envs))
        ((_, told),) = await asked(engine, "BackupCreate")
        assert told["credential"]["AWS_CERT"] == CERTIFICATES * times
        assert (await served.client.call("BackupRestore", restore(engine, envs=envs))).taskError == b""
        for _, told in await asked(engine, "BackupRestore"):
            assert told["credential"]["AWS_CERT"] == CERTIFICATES * times
    assert store.asked[0][2]["AWS_CERT"] == CERTIFICATES * times


async def test_other_requests_are_no_larger_than_elsewhere(engine: EngineProcess, proxy: ProxyClient) -> None:
    code, text = await proxy.error("VolumeGet", of(engine, volume_name="v" * MAX_REQUEST_BYTES))
    assert code == "RESOURCE_EXHAUSTED"
    assert f"imrpc.ProxyEngineService/VolumeGet takes at most {MAX_REQUEST_BYTES}" in text
    largest = backup(engine, envs=["AWS_CERT=" + "c" * MAX_LARGE_REQUEST_BYTES])
    code, text = await proxy.error("SnapshotBackup", largest)
    assert code == "RESOURCE_EXHAUSTED"
    assert str(MAX_LARGE_REQUEST_BYTES) in text
    assert await engine.calls() == []


async def test_requests_of_changes_in_progress_are_bounded_together(engine: EngineProcess) -> None:
    envs = [*ENVS, f"AWS_CERT={'c' * (1 << 20)}"]
    async with served_proxy() as served:
        await take(served.client, engine, "s1")
        await engine.tell(hang="BackupCreate", at="*")
        begun = []
        for number in range(1, 6):
            begun.append(served.client.call("SnapshotBackup", backup(engine, envs=envs)))
            async with asyncio.timeout(patience(30)):
                while len(await engine.tell(pending=True)) < number:
                    assert not begun[-1].done()
        for call in begun:  # which does not end the changes
            call.cancel()
        code, text = await served.client.error("SnapshotBackup", backup(engine, envs=envs))
        assert code == "RESOURCE_EXHAUSTED"
        assert f"{MOST_BYTES} is the most" in text
        await served.client.call(
            "SnapshotHash", pb.EngineSnapshotHashRequest(proxy_engine_request=of(engine))
        )
        await engine.renew()
        async with asyncio.timeout(patience(30)):
            while True:
                code, text = await served.client.error("SnapshotBackup", backup(engine, envs=envs))
                if code != "RESOURCE_EXHAUSTED":
                    break
