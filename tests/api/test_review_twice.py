"""Review: the same replica is added twice, because a manager was restarted and the first call goes on."""

import asyncio

import pytest

from instance_manager.adapters.engine.controllers import GrpcControllers
from instance_manager.pb.imrpc import proxy_pb2 as pb
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, of


async def test_a_replica_that_is_added_twice_does_not_stay_marked_as_rebuilding(
    engine: EngineProcess, proxy: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = await engine.add("vol1-r-3")
    request = pb.EngineReplicaAddRequest(
        proxy_engine_request=of(engine), replica_address=new, size=16 << 20, replica_name="vol1-r-3"
    )
    await engine.tell(hold="rebuild")
    first = proxy.call("ReplicaAdd", request)
    await engine.called("FilesSync")
    first.cancel()  # the manager is restarted; the change goes on
    may_go, is_there = asyncio.Event(), asyncio.Event()
    ask = GrpcControllers.sync_limit

    async def late(self: GrpcControllers, which: object) -> int:
        is_there.set()
        await may_go.wait()
        return await ask(self, which)

    monkeypatch.setattr(GrpcControllers, "sync_limit", late)
    second = asyncio.ensure_future(proxy.call("ReplicaAdd", request))
    done, _ = await asyncio.wait(
        {second, asyncio.ensure_future(is_there.wait())}, return_when="FIRST_COMPLETED"
    )
    await engine.tell(release="rebuild")
    while {each.mode for each in (await proxy.call("ReplicaList", of(engine))).replica_list.replicas} != {1}:
        pass
    calls = []
    while not any(m == "RebuildingSet" and not q.get("rebuilding") for _, m, q, _ in calls):
        calls += await engine.calls()
    # What a real controller says of a replica that is RW by now; the one of the tests does not check.
    await engine.tell(
        fail="ReplicaPrepareRebuild",
        at="controller",
        code="UNKNOWN",
        message="invalid mode RW to prepare rebuild",
    )
    may_go.set()
    (told,) = await asyncio.gather(second, return_exceptions=True)
    assert isinstance(told, Exception)
    await proxy.call("SnapshotPurge", pb.EngineSnapshotPurgeRequest(proxy_engine_request=of(engine)))


async def test_every_replica_that_fails_is_named(engine: EngineProcess, proxy: ProxyClient) -> None:
    for number in (1, 2):
        await engine.tell(fail="SnapshotPurge", at=f"vol1-r-{number}", code="INTERNAL", message="why " * 120)
    third = await engine.add("vol1-r-3")
    await engine.tell(fail="ReplicaGet", at="vol1-r-3", code="INTERNAL", message="x")
    _, text = await proxy.error(
        "SnapshotPurge", pb.EngineSnapshotPurgeRequest(proxy_engine_request=of(engine))
    )
    assert all(address in text for name, address in engine.replicas.items() if name != "vol1-r-3"), third
