"""Engines that hang, or tell what cannot be, keep nobody from being served."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from instance_manager.adapters.engine.sizes import MAX_LARGE_BYTES
from instance_manager.api.listeners import Offset
from instance_manager.pb.ptypes import replica_pb2
from tests.support.daemon import Daemon, Watch, running_daemon, stub
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.patience import patience


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as running:
        yield running


def target(daemon: Daemon) -> str:
    address: str = daemon.serving[-1]["addresses"][Offset.PROXY]
    return address


async def test_replicas_that_tell_too_much_do_not_hold_up_the_daemon(served: Daemon) -> None:
    replica = replica_pb2.Replica(size="1")
    for number in range(20_000):
        replica.disks[f"volume-snap-{number}.img"].parent = "volume-snap-a.img"
    told = replica_pb2.ReplicaGetResponse(replica=replica).SerializeToString()
    assert len(told) < MAX_LARGE_BYTES, "it arrives"
    loop, slowest = asyncio.get_running_loop(), 0.0
    with EngineProcess("--replicas", "4") as engine:
        await engine.tell(odd="ReplicaGet", at="*", answer=told.hex())
        async with grpc.aio.insecure_channel(target(served)) as channel, served.client() as other:
            await other.health()
            call = asyncio.ensure_future(
                ProxyClient(channel).call("SnapshotList", {"address": engine.address})
            )
            while not call.done():
                begun = loop.time()
                await other.health()
                slowest = max(slowest, loop.time() - begun)
            with pytest.raises(grpc.aio.AioRpcError, match="it tells of 20000 files"):
                await call
    assert slowest < patience(1.0)


async def test_what_becomes_of_a_change_is_logged_though_its_caller_has_gone(served: Daemon) -> None:
    with EngineProcess() as engine:
        async with grpc.aio.insecure_channel(target(served)) as channel:
            client = ProxyClient(channel)
            inner = {"proxy_engine_request": {"address": engine.address, "engine_name": engine.name}}
            new = await engine.add("vol1-r-3")
            await engine.tell(hold="rebuild")
            await engine.tell(
                fail="ReplicaVerifyRebuild", at="controller", code="INTERNAL", message="no match"
            )
            call = client.call("ReplicaAdd", inner | {"replica_address": new, "size": str(16 << 20)})
            await engine.called("FilesSync")
            call.cancel()
            await engine.tell(release="rebuild")
            line = await served.logged(lambda line: "caller had gone" in line["event"])
    assert line["reason"].endswith("no match")
    assert (line["method"], line["name"]) == ("ReplicaAdd", engine.name)
    assert f"replica_address={new}" in line["subject"]


async def test_a_change_that_the_end_of_the_daemon_cuts_off_is_logged(served: Daemon) -> None:
    with EngineProcess() as engine:
        async with grpc.aio.insecure_channel(target(served)) as channel:
            inner = {"proxy_engine_request": {"address": engine.address, "engine_name": engine.name}}
            await engine.tell(hang="DiskMarkAsRemoved", at="vol1-r-2")
            call = ProxyClient(channel).call("SnapshotRemove", inner | {"names": ["s1"]})
            async with asyncio.timeout(patience(20)):
                while "DiskMarkAsRemoved" not in await engine.tell(pending=True):
                    pass
            metrics = (await served.http("/metrics"))[1]
            call.cancel()
            await served.stop()
    assert "\ninstance_manager_engine_changes 1.0\n" in metrics
    (line,) = [line for line in served.lines if "cut off" in line["event"]]
    assert (line["level"], line["method"], line["name"]) == ("warning", "SnapshotRemove", engine.name)
    assert line["subject"] == "names=s1"


async def test_no_change_is_begun_while_the_daemon_ends(served: Daemon) -> None:
    async with served.client() as processes, Watch(processes) as watch:
        await processes.process_create(stub("slow-to-end", "--ignore", "SIGINT"))
        await watch.state("slow-to-end", "running")
    with EngineProcess() as engine:
        async with grpc.aio.insecure_channel(target(served)) as channel:
            client = ProxyClient(channel)
            inner = {"proxy_engine_request": {"address": engine.address, "engine_name": engine.name}}
            await client.call("VolumeGet", inner["proxy_engine_request"])
            await engine.calls()
            served.process.terminate()
            await served.logged(lambda line: line["event"] == "shutting down")
            code, text = await client.error("SnapshotRemove", inner | {"names": ["s1"]})
            assert (code, text) == ("UNAVAILABLE", "cannot begin SnapshotRemove: the daemon is shutting down")
            assert await engine.calls() == []
    served.process.terminate()
    await served.ended()
