"""Review: one request must not hold up the whole daemon."""

import asyncio
from pathlib import Path

import grpc.aio

from instance_manager.api.listeners import Offset
from instance_manager.pb.ptypes import controller_pb2, replica_pb2
from tests.support.daemon import running_daemon
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.patience import patience


async def test_an_engine_that_tells_too_much_does_not_stop_the_daemon(tmp_path: Path) -> None:
    replica = replica_pb2.Replica()
    for number in range(60_000):
        replica.disks[f"volume-snap-{number}.img"].parent = "volume-snap-a.img"
    told = replica_pb2.ReplicaGetResponse(replica=replica).SerializeToString()
    assert len(told) < 4 << 20
    slowest = 0.0
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        with EngineProcess("--replicas", "1") as engine:
            (address,) = engine.replicas.values()
            each = controller_pb2.ControllerReplica(
                address=controller_pb2.ReplicaAddress(address=address), mode=controller_pb2.ReplicaMode.RW
            )
            listed = controller_pb2.ReplicaListReply(replicas=[each] * 4).SerializeToString()
            await engine.tell(odd="ReplicaList", at="controller", answer=listed.hex())
            await engine.tell(odd="ReplicaGet", at="vol1-r-1", answer=told.hex())
            async with (
                grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel,
                served.client() as other,
            ):
                await other.health()
                call = asyncio.ensure_future(ProxyClient(channel).call("SnapshotList", {"address": engine.address}))
                loop = asyncio.get_running_loop()
                while not call.done():
                    begun = loop.time()
                    await other.health()
                    slowest = max(slowest, loop.time() - begun)
                await asyncio.gather(call, return_exceptions=True)
    assert slowest < patience(1.0)
