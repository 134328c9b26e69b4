"""Engines that hang, or tell what cannot be, keep nobody from being served."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from instance_manager.api.listeners import Offset
from instance_manager.pb.ptypes import replica_pb2
from tests.support.daemon import Daemon, running_daemon
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
    for number in range(60_000):
        replica.disks[f"volume-snap-{number}.img"].parent = "volume-snap-a.img"
    told = replica_pb2.ReplicaGetResponse(replica=replica).SerializeToString()
    assert len(told) < 4 << 20, "it arrives"
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
            with pytest.raises(grpc.aio.AioRpcError, match="it tells of 60000 files"):
                await call
    assert slowest < patience(1.0)
