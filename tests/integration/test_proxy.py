"""The whole life of a volume through the proxy of a daemon, whose engine is one of its instances."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from instance_manager.api.listeners import Offset
from instance_manager.pb.imrpc import imrpc_pb2
from instance_manager.platform.contract import NAME_VARIABLE
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper
from tests.support.engine.process import EngineProcess
from tests.support.engine.recipes import BACKUP, SIZE
from tests.support.engine.served import ProxyClient
from tests.support.node import written
from tests.support.patience import patience

WITHIN = patience(30.0)
FIRST, SECOND = "vol1-r-1", "vol1-r-2"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as running:
        yield running


@pytest.fixture
async def client(served: Daemon) -> AsyncIterator[ProxyClient]:
    async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
        yield ProxyClient(channel)


async def start_engine(daemon: Daemon, folder: Path) -> None:
    """Let the daemon run an instance whose program can look at backups."""
    program = folder / "longhorn"
    told = json.dumps({"VolumeName": "vol1", "VolumeSize": str(SIZE)})
    program.write_text(
        f'#!/bin/sh\ntest "$1" = backup || exec sleep 1000\n'
        f"test \"$AWS_SECRET_ACCESS_KEY\" = hunter2 || {{ echo no key; exit 1; }}\necho '{told}'\n"
    )
    program.chmod(0o755)
    async with daemon.client() as client:
        await client.process_create(imrpc_pb2.ProcessSpec(name="vol1-e-0", binary=str(program)))


async def replicas(client: ProxyClient, which: dict[str, Any]) -> dict[str, int]:
    told = (await client.call("ReplicaList", which)).replica_list.replicas
    return {each.address.address: each.mode for each in told}


async def settled(client: ProxyClient, which: dict[str, Any], method: str) -> None:
    """Wait until every replica says that something is complete."""
    async with asyncio.timeout(WITHIN):
        while {each.state for each in (await client.call(method, which)).status.values()} != {"complete"}:
            pass


async def test_a_volume_lives_through_the_proxy(served: Daemon, client: ProxyClient, tmp_path: Path) -> None:
    await start_engine(served, tmp_path)
    with EngineProcess("--replicas", "0") as engine:
        which = {"address": engine.address, "volume_name": "vol1", "engine_name": "vol1-e-0"}
        inner = {"proxy_engine_request": which}
        first, second = await engine.add(FIRST), await engine.add(SECOND)
        for address, name in ((first, FIRST), (second, SECOND)):
            size = {"size": str(SIZE), "current_size": str(SIZE)}
            await client.call("ReplicaAdd", inner | size | {"replica_address": address, "replica_name": name})
        assert await replicas(client, which) == {first: 1, second: 1}
        await client.call("VolumeFrontendStart", inner | {"frontend_start": {"frontend": "tgt-blockdev"}})
        for name in ("s1", "s2"):
            await client.call("VolumeSnapshot", inner | {"snapshot_volume": {"name": name}})
        await client.call("SnapshotHash", inner | {"snapshot_name": "s1"})
        envs = ["AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter2"]
        backup = {"backup_name": "b1", "snapshot_name": "s1", "backup_target": "vfs:///b", "envs": envs}
        begun = await client.call("SnapshotBackup", inner | backup)
        done = await client.call(
            "SnapshotBackupStatus", inner | {"backup_name": "b1", "replica_address": begun.replica}
        )
        assert (done.state, done.backup_url) == ("complete", BACKUP)
        await client.call("SnapshotRemove", inner | {"names": ["s1"]})
        await client.call("SnapshotPurge", inner | {"skip_if_in_progress": True})
        await settled(client, which, "SnapshotPurgeStatus")
        names = set((await client.call("SnapshotList", which)).disks)
        assert "s1" not in names
        assert {"s2", "volume-head"} <= names
        restore = inner | {"url": BACKUP, "target": "s3://b@r/", "volume_name": "vol1", "envs": envs}
        assert b"frontend" in (await client.call("BackupRestore", restore)).taskError
        await client.call("VolumeFrontendShutdown", which)
        for name in names - {"volume-head", "s2"}:
            await client.call("SnapshotRemove", inner | {"names": [name]})
        await client.call("SnapshotPurge", inner)
        assert (await client.call("BackupRestore", restore)).taskError == b""
        await settled(client, which, "BackupRestoreStatus")
        await client.call("ReplicaRemove", inner | {"replica_address": second})
        assert await replicas(client, which) == {first: 1}
    lines = "\n".join(map(str, served.lines))
    assert "hunter2" not in lines
    async with served.client() as processes, Watch(processes) as watch:
        await processes.process_create(sleeper("later"))
        await watch.state("later", "running")
        environments = [psutil.Process(pid).environ() for pid in served.descendants()]
    assert any(each.get(NAME_VARIABLE) == "later" for each in environments)
    assert not any("hunter2" in each.values() for each in environments)


@pytest.mark.parametrize(("url", "secret"), [(f"{BACKUP}\0", "hunter2"), (BACKUP, "hunter2\0")])
async def test_no_credential_is_logged_of_a_restore_that_is_refused(
    served: Daemon, client: ProxyClient, tmp_path: Path, url: str, secret: str
) -> None:
    await start_engine(served, tmp_path)
    with EngineProcess() as engine:
        which = {"address": engine.address, "volume_name": "vol1", "engine_name": "vol1-e-0"}
        envs = ["AWS_ACCESS_KEY_ID=id", f"AWS_SECRET_ACCESS_KEY={secret}"]
        request = {"proxy_engine_request": which, "url": url, "target": "s3://b@r/", "envs": envs}
        code, text = await client.error("BackupRestore", request)
        assert code in {"INVALID_ARGUMENT", "INTERNAL"}
        assert "defect" not in text
    await served.stop()
    assert "hunter2" not in json.dumps(served.lines)


async def test_a_restore_asks_the_program_of_the_engine_and_no_other(client: ProxyClient) -> None:
    with EngineProcess() as engine:
        inner = {"proxy_engine_request": {"address": engine.address, "engine_name": engine.name}}
        told = await client.call("BackupRestore", inner | {"url": BACKUP, "target": "vfs:///b"})
    assert b"failed to get the current restoring backup info: cannot find" in told.taskError


async def test_a_daemon_that_ends_does_not_wait_for_engines_that_hang(
    served: Daemon, client: ProxyClient
) -> None:
    with EngineProcess() as engine:
        await engine.tell(hang="*", at="*")
        calls = [
            client.call("VolumeGet", {"address": engine.address}),
            client.call(
                "VolumeSnapshot",
                {"proxy_engine_request": {"address": engine.address}, "snapshot_volume": {"name": "s"}},
            ),
        ]
        async with asyncio.timeout(WITHIN):
            while len(await engine.tell(pending=True)) < len(calls):
                pass
        await served.stop()
        assert served.process.returncode == 0
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError):
                await call


async def test_what_the_daemon_runs_itself_at_its_end_was_left_by_no_instance(
    served: Daemon, client: ProxyClient, tmp_path: Path
) -> None:
    program = tmp_path / "longhorn"
    program.write_text(
        f'#!/bin/sh\ntest "$1" = backup || exec sleep 1000\n'
        f"sleep 1000 & echo $! $$ > {tmp_path}/looking; wait\n"
    )
    program.chmod(0o755)
    async with served.client() as processes:
        await processes.process_create(imrpc_pb2.ProcessSpec(name="vol1-e-0", binary=str(program)))
    with EngineProcess() as engine:
        inner = {"proxy_engine_request": {"address": engine.address, "engine_name": engine.name}}
        call = client.call("BackupRestore", inner | {"url": BACKUP, "target": "vfs:///b"})
        await written(tmp_path / "looking")
        assert await served.stop() == 0
        with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
            await call
    assert not [line for line in served.lines if "left behind" in line["event"]]
