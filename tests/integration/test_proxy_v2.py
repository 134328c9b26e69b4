"""The whole life of a v2 volume through a daemon that serves both data engines."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.api.listeners import Offset
from instance_manager.pb.imrpc import common_pb2, disk_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.daemon import Daemon, running_daemon
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, of
from tests.support.patience import patience
from tests.support.service_client import ServiceClient
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.volume import ADDRESSES, ENGINE, FRONTEND, HERE, TCP, THERE, WHICH, asking

WITHIN = patience(30.0)
DISKS = disk_pb2.DESCRIPTOR.services_by_name["DiskService"]
NAMED = {"disk_type": "block", "disk_name": "d1"}
DISK = NAMED | {"disk_path": "/dev/sdx"}
ENVS = ["AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter2"]
WO, RW = 0, 1


@pytest.fixture
async def served(tmp_path: Path, spdk: SpdkProcess) -> AsyncIterator[Daemon]:
    options = ("--listen", "127.0.0.1:0", "--spdk-enabled", "--spdk-service-address", spdk.address)
    async with running_daemon(tmp_path, *options, "--stop-timeout", "2") as running:
        yield running


@pytest.fixture
async def proxy(served: Daemon) -> AsyncIterator[ProxyClient]:
    async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
        yield ProxyClient(channel)


@pytest.fixture
async def disks(served: Daemon) -> AsyncIterator[ServiceClient]:
    async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.DISK]) as channel:
        yield ServiceClient(channel, DISKS)


def spec(kind: str, name: str, engine: str = "", **fields: Any) -> pb.InstanceSpec:
    return pb.InstanceSpec(
        name=name,
        type=kind,
        volume_name="v",
        engine_name=engine,
        port_count=1,
        data_engine=common_pb2.DATA_ENGINE_V2,
        spdk_instance_spec=pb.SpdkInstanceSpec(size=16 << 20, **fields),
    )


async def make_volume(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.instance_create(spec("replica", HERE, disk_name="d1"))
        await client.instance_create(
            spec("engine", ENGINE, replica_address_map={HERE: ADDRESSES[HERE]}, frontend="spdk-tcp-nvmf")
        )
        await client.instance_create(spec("engine-frontend", FRONTEND, ENGINE, frontend="spdk-tcp-blockdev"))


async def replicas(proxy: ProxyClient) -> dict[str, int]:
    told = (await proxy.call("ReplicaList", WHICH)).replica_list.replicas
    return {each.address.address: each.mode for each in told}


async def test_a_volume_of_v2_lives_through_the_daemon_beside_one_of_v1(
    spdk: SpdkProcess, served: Daemon, proxy: ProxyClient, disks: ServiceClient, engine: EngineProcess
) -> None:
    await disks.call("DiskCreate", DISK)
    await make_volume(served)
    assert (await disks.call("DiskReplicaInstanceList", NAMED)).replica_instances.keys() == {HERE}
    volume = (await proxy.call("VolumeGet", WHICH)).volume
    assert (volume.name, volume.replicaCount, volume.endpoint) == ("v", 1, "/dev/nvme0n1")
    for name in ("s1", "s2"):
        await proxy.call("VolumeSnapshot", asking(snapshot_volume={"name": name}))
    await proxy.call("SnapshotHash", asking(snapshot_name="s1"))
    backup = {"backup_name": "b1", "snapshot_name": "s1", "backup_target": "s3://b@r/", "envs": ENVS}
    begun = await proxy.call("SnapshotBackup", asking(**backup))
    asked = asking(backup_name="b1", replica_address=begun.replica)
    assert (await proxy.call("SnapshotBackupStatus", asked)).state == "in_progress"
    added = {"replica_name": THERE, "replica_address": TCP[THERE]}
    await proxy.call("ReplicaAdd", asking(**added))
    assert await replicas(proxy) == {TCP[HERE]: RW, TCP[THERE]: WO}
    code, text = await proxy.error("ReplicaAdd", asking(**added))
    assert code == "INTERNAL"
    assert "replica add is already in progress" in text
    await proxy.call("ReplicaRebuildingQosSet", asking(qos_limit_mbps="7"))
    await spdk.tell(finish=True)
    assert await replicas(proxy) == {TCP[HERE]: RW, TCP[THERE]: RW}
    assert (await proxy.call("ReplicaRebuildingStatus", WHICH)).status == {}
    assert (await proxy.call("SnapshotBackupStatus", asked)).state == "complete"
    checksums = (await proxy.call("SnapshotHashStatus", asking(snapshot_name="s1"))).status
    assert checksums[HERE].checksum
    await proxy.call("SnapshotRevert", asking(name="s1"))
    await proxy.call("SnapshotRemove", asking(names=["s2"]))
    await proxy.call("SnapshotPurge", asking())
    assert (await proxy.call("SnapshotList", WHICH)).disks.keys() == {"s1", "volume-head"}
    await proxy.call("VolumeExpand", asking(expand={"size": str(32 << 20)}))
    assert (await proxy.call("VolumeGet", WHICH)).volume.size == 32 << 20
    restore = asking(url="s3://b@r/?backup=b1", target="s3://b@r/", envs=ENVS)
    assert (await proxy.call("BackupRestore", restore)).taskError == b""
    assert (await proxy.call("BackupRestoreStatus", WHICH)).status.keys() == set(TCP.values())
    await proxy.call("ReplicaRemove", asking(**added))
    assert await replicas(proxy) == {TCP[HERE]: RW}
    assert (await proxy.call("VolumeGet", of(engine))).volume.name == "vol1"
    assert "hunter2" not in "\n".join(map(str, served.lines))


async def test_v1_does_not_feel_that_the_service_of_v2_is_away_and_it_is_found_again(
    spdk: SpdkProcess, served: Daemon, proxy: ProxyClient, disks: ServiceClient, engine: EngineProcess
) -> None:
    await disks.call("DiskCreate", DISK)
    await make_volume(served)
    await proxy.call("ReplicaList", WHICH)
    await spdk.kill()
    code, text = await proxy.error("ReplicaList", WHICH)
    assert (code, "code = Unavailable" in text) == ("INTERNAL", True)
    assert (await disks.error("DiskGet", NAMED))[0] == "UNAVAILABLE"
    assert (await disks.call("VersionGet", {})).instanceManagerDiskServiceAPIVersion == 1
    assert (await proxy.call("VolumeGet", of(engine))).volume.name == "vol1"
    await spdk.start()
    async with asyncio.timeout(WITHIN):
        while not (await answered(proxy, disks)):
            pass
    assert await replicas(proxy) == {TCP[HERE]: RW}


async def answered(proxy: ProxyClient, disks: ServiceClient) -> bool:
    """Return whether the service of v2 is there."""
    calls = proxy.call("ReplicaList", WHICH), disks.call("DiskGet", NAMED)
    return not any(
        isinstance(each, grpc.aio.AioRpcError)
        for each in await asyncio.gather(*calls, return_exceptions=True)
    )


async def test_a_daemon_that_ends_does_not_wait_for_a_service_that_hangs(
    spdk: SpdkProcess, served: Daemon, proxy: ProxyClient, disks: ServiceClient
) -> None:
    await spdk.tell(hang="*")
    calls = [
        proxy.call("ReplicaList", WHICH),
        proxy.call("VolumeSnapshot", asking(snapshot_volume={"name": "s"})),
        proxy.call("SPDKBackingImageWatch", {}).read(),
        disks.call("DiskCreate", DISK),
        disks.call("DiskReplicaInstanceDelete", NAMED | {"disk_uuid": "u", "replcia_instance_name": "r"}),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    for method in (
        "EngineGet",
        "EngineFrontendSnapshotCreate",
        "BackingImageWatch",
        "DiskCreate",
        "ReplicaDelete",
    ):
        async with asyncio.timeout(WITHIN):
            while method not in await spdk.tell(pending=True):
                pass
    await served.stop()
    assert served.process.returncode == 0
    for told in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(told, grpc.aio.AioRpcError)
