"""What managers look for in errors is there however many replicas an engine tells of."""

from typing import Any

import grpc
import pytest

from instance_manager.core.backups import BackupVolume
from instance_manager.pb.imrpc import proxy_pb2 as pb
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import Backups, ProxyClient, of, served_proxy

R1, R2, R3 = "vol1-r-1", "vol1-r-2", "vol1-r-3"
URL = "vfs:///b?backup=b1&volume=old"
LOST = "rpc error: code = {} desc = transport is closing"
DISCONNECTED = ["Canceled", "DeadlineExceeded", "Unavailable"]
"""Codes by which a manager knows that an engine could not be reached, wherever they are in the text."""


def of_each(*told: str, replicas: int = 20) -> str:
    """Return an engine's error about many replicas, with what a few of them told in the middle."""
    refused = (
        "failed to snapshot replica {0} from remote: rpc error: code = Unknown desc = no space left on device"
    )
    texts = [
        f"tcp://{each}: {refused.format(each)}" for each in (f"10.42.1.{n}:10010" for n in range(replicas))
    ]
    texts[replicas // 2 : replicas // 2] = told
    return "; ".join(texts)


def adding(engine: EngineProcess, address: str) -> Any:
    return pb.EngineReplicaAddRequest(
        proxy_engine_request=of(engine), replica_address=address, replica_name=R3, size=16 << 20
    )


@pytest.mark.parametrize("code", DISCONNECTED)
async def test_a_replica_that_cannot_be_added_because_another_was_lost(
    engine: EngineProcess, proxy: ProxyClient, code: str
) -> None:
    address = await engine.add(R3)
    await engine.tell(
        fail="ControllerReplicaCreate", at="controller", code="UNKNOWN", message=of_each(LOST.format(code))
    )
    _, text = await proxy.error("ReplicaAdd", adding(engine, address))
    assert f"rpc error: code = {code} desc =" in text


@pytest.mark.parametrize("text", ["replica add is already in progress", "restore is in progress"])
async def test_a_replica_that_is_being_added(engine: EngineProcess, proxy: ProxyClient, text: str) -> None:
    address = await engine.add(R3)
    await engine.tell(fail="ReplicaPrepareRebuild", at="controller", code="ABORTED", message=of_each(text))
    code, told = await proxy.error("ReplicaAdd", adding(engine, address))
    assert code == "ABORTED"
    assert text in told


async def test_a_backup_that_takes_too_long_to_begin(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(snapshots=1)
    await engine.tell(fail="BackupCreate", at="*", code="DEADLINE_EXCEEDED", message=of_each())
    request = pb.EngineSnapshotBackupRequest(
        proxy_engine_request=of(engine), snapshot_name="n000", backup_target=f"vfs:///{'b' * 900}"
    )
    _, text = await proxy.error("SnapshotBackup", request)
    assert "rpc error: code = DeadlineExceeded desc =" in text


@pytest.mark.parametrize(
    "text",
    [
        "cannot initiate backup restore as there is one already in progress",
        "already restored backup b1",
        "error initiating full backup restore: failed lock",
    ],
)
async def test_a_restore_that_a_replica_refuses(engine: EngineProcess, text: str) -> None:
    long = of_each(text, replicas=60)
    await engine.tell(fail="BackupRestore", at=R1, code="UNKNOWN", message=long)
    async with served_proxy(store=Backups({URL: BackupVolume("old", 16 << 20)})) as served:
        request = pb.EngineBackupRestoreRequest(proxy_engine_request=of(engine), url=URL, target="vfs:///b")
        assert long in (await served.client.call("BackupRestore", request)).taskError.decode()


async def test_an_error_that_is_longer_than_what_clients_accept_keeps_its_code_and_both_ends(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    letters = "\u8a9e%" * 500
    message = f"begin {of_each(replicas=100)} {letters} end"
    await engine.tell(fail="VolumeGet", at="controller", code="ABORTED", message=message)
    code, text = await proxy.error("VolumeGet", of(engine))
    assert code == grpc.StatusCode.ABORTED.name
    assert "rpc error: code = Aborted desc = begin" in text
    assert text.endswith(" end")
