"""Review: the daemon while its engines hang, and at its end."""

import asyncio
import json
from pathlib import Path

import grpc
import grpc.aio

from instance_manager.api.listeners import Offset
from tests.integration.test_proxy import start_engine
from tests.support.daemon import running_daemon, sleeper
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.patience import patience


async def test_engines_that_hang_do_not_keep_instances_from_being_deleted(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        async with served.client() as processes:
            await processes.process_create(sleeper("one"))
            with EngineProcess() as engine:
                await engine.tell(hang="*", at="*")
                target = served.serving[-1]["addresses"][Offset.PROXY]
                options = (("grpc.use_local_subchannel_pool", 1),)
                channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(9)]
                inner = {"proxy_engine_request": {"address": engine.address}}
                calls = [
                    asyncio.ensure_future(ProxyClient(channel).call("SnapshotPurge", inner))
                    for channel in channels
                    for _ in range(100)
                ]
                async with asyncio.timeout(patience(60)):
                    while len(await engine.tell(pending=True)) + sum(c.done() for c in calls) < len(calls):
                        await asyncio.sleep(0.1)
                print("pending", len(await engine.tell(pending=True)), "done", sum(c.done() for c in calls))
                try:
                    print(await processes.process_delete("one"))
                    told = ""
                except Exception as error:  # noqa: BLE001
                    told = str(error)
                print("DELETE:", told)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                try:
                    await processes.process_delete("one")
                except Exception as error:
                    print("after", error)
                print("pending after cancel", len(await engine.tell(pending=True)))
                # and a change by somebody else now?
                more = [asyncio.ensure_future(ProxyClient(channel).call("SnapshotPurge", inner)) for channel in channels for _ in range(20)]
                await asyncio.sleep(2)
                done = [c for c in more if c.done()]
                print("more done", len(done), {str(c.exception().details())[:150] for c in done})
                for call in more:
                    call.cancel()
                await asyncio.gather(*more, return_exceptions=True)
                for channel in channels:
                    await channel.close()
    assert not told


async def test_what_becomes_of_a_change_is_told_though_its_caller_has_gone(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        with EngineProcess() as engine:
            async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
                client = ProxyClient(channel)
                inner = {"proxy_engine_request": {"address": engine.address, "engine_name": "vol1-e-0"}}
                # one that the end of the daemon cuts off, marked on one replica of two
                await engine.tell(hang="DiskMarkAsRemoved", at="vol1-r-2")
                call = client.call("SnapshotRemove", inner | {"names": ["s1"]})
                async with asyncio.timeout(patience(20)):
                    while "DiskMarkAsRemoved" not in await engine.tell(pending=True):
                        pass
                call.cancel()
                # one that fails when nobody listens any more
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
    for line in served.lines:
        print(json.dumps(line)[:220])
    assert "told to fail" in json.dumps(served.lines)
