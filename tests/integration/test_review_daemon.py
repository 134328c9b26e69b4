"""Review: the daemon while its engines hang, and at its end."""

import asyncio
import json
from pathlib import Path

import grpc.aio

from instance_manager.api.listeners import Offset
from tests.support.daemon import running_daemon, sleeper
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.patience import patience

CONNECTIONS, CALLS = 9, 100


async def test_engines_that_hang_do_not_keep_instances_from_being_deleted(tmp_path: Path) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with (
        running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served,
        served.client() as processes,
    ):
        await processes.process_create(sleeper("one"))
        with EngineProcess() as engine:
            await engine.tell(hang="*", at="*")
            target = served.serving[-1]["addresses"][Offset.PROXY]
            channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(CONNECTIONS)]
            inner = {"proxy_engine_request": {"address": engine.address}}
            calls = [
                asyncio.ensure_future(ProxyClient(each).call("SnapshotPurge", inner))
                for each in channels
                for _ in range(CALLS)
            ]
            async with asyncio.timeout(patience(60)):
                while len(await engine.tell(pending=True)) + sum(each.done() for each in calls) < len(calls):
                    pass
            print("hanging", len(await engine.tell(pending=True)))
            try:
                await processes.process_delete("one")
            finally:
                for each in calls:
                    each.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                print("hanging without callers", len(await engine.tell(pending=True)))
                for channel in channels:
                    await channel.close()


async def test_what_becomes_of_a_change_is_told_though_its_caller_has_gone(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        with EngineProcess() as engine:
            async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
                client = ProxyClient(channel)
                inner = {"proxy_engine_request": {"address": engine.address, "engine_name": "vol1-e-0"}}
                new = await engine.add("vol1-r-3")
                await engine.tell(hold="rebuild")
                await engine.tell(
                    fail="ReplicaVerifyRebuild", at="controller", code="INTERNAL", message="told to fail"
                )
                call = client.call("ReplicaAdd", inner | {"replica_address": new, "size": str(16 << 20)})
                await engine.called("FilesSync")
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await engine.tell(release="rebuild")
                await engine.called("ReplicaVerifyRebuild")
                await client.call("VolumeGet", {"address": engine.address})
            await served.stop()
    assert "told to fail" in json.dumps(served.lines)


async def test_a_change_that_the_end_of_the_daemon_cuts_off_is_told(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        with EngineProcess() as engine:
            async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
                inner = {"proxy_engine_request": {"address": engine.address, "engine_name": "vol1-e-0"}}
                await engine.tell(hang="DiskMarkAsRemoved", at="vol1-r-2")
                call = ProxyClient(channel).call("SnapshotRemove", inner | {"names": ["s1"]})
                async with asyncio.timeout(patience(20)):
                    while "DiskMarkAsRemoved" not in await engine.tell(pending=True):
                        pass
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await served.stop()
    told = [line for line in served.lines if line["event"] != "audit"]
    assert "vol1-e-0" in json.dumps(told) or engine.address in json.dumps(told)


async def test_no_change_is_begun_when_the_daemon_ends(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        async with served.client() as processes:
            await processes.process_create(sleeper("one"))
        with EngineProcess() as engine:
            async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
                client = ProxyClient(channel)
                inner = {"proxy_engine_request": {"address": engine.address, "engine_name": "vol1-e-0"}}
                await engine.tell(hang="ReplicaGet", at="*")  # keeps the port open for the grace of calls
                call = client.call("SnapshotPurge", inner)
                await engine.called("ReplicaGet")
                served.process.terminate()
                await served.logged(lambda line: line["event"] == "shutting down")
                late = client.call("SnapshotRemove", inner | {"names": ["s1"]})
                await asyncio.gather(call, late, return_exceptions=True)
                begun = [method for _, method, *_ in await engine.calls()]
            await served.ended()
    assert "ReplicaList" not in begun
