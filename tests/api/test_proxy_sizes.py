"""How much of what engines answer is taken: from each, for each client, and at once."""

import asyncio
from typing import Any

import pytest

from instance_manager.adapters.engine import Timeouts, calls, channels, sizes
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.slots import Holder
from instance_manager.pb.ptypes import controller_pb2, replica_pb2, syncagent_pb2
from instance_manager.pb.spdkrpc import spdk_pb2
from instance_manager.platform.caller import Caller
from tests.support.engine.flooding import flooding_engine
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, of, served_proxy
from tests.support.patience import patience


@pytest.mark.parametrize(
    ("method", "size", "code"),
    [
        ("MetricsGet", sizes.MAX_ANSWER_BYTES - 100, ""),
        ("MetricsGet", sizes.MAX_ANSWER_BYTES, "RESOURCE_EXHAUSTED"),
        # This one is taken, and the other replica answers nothing.
        ("SnapshotList", sizes.MAX_LARGE_BYTES - 1000, "DEADLINE_EXCEEDED"),
        ("SnapshotList", sizes.MAX_LARGE_BYTES, "RESOURCE_EXHAUSTED"),
    ],
)
async def test_an_answer_has_a_largest_size(method: str, size: int, code: str) -> None:
    async with (
        flooding_engine(size, whole=True) as address,
        served_proxy(Timeouts(call=patience(2))) as served,
    ):
        request = {"address": address}
        if not code:
            await served.client.call(method, request)
            return
        found, text = await served.client.error(method, request)
        assert found == code, text
        assert (address in text) == (code == "RESOURCE_EXHAUSTED")


async def test_an_answer_that_does_not_come_gives_way_to_those_that_do(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST_LARGE", 1)
    monkeypatch.setattr(calls, "_PATIENCE", 0.2)
    async with (
        flooding_engine(sizes.MAX_LARGE_BYTES // 2, whole=False) as address,
        served_proxy(Timeouts(call=patience(60))) as served,
    ):
        stuck = served.client.call("SnapshotList", {"address": address})
        await served.client.call("SnapshotList", of(engine))
        stuck.cancel()


async def test_one_client_cannot_have_all_calls_of_engines(
    engine: EngineProcess, proxy: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST_CALLS_OF_CLIENT", 2)
    await engine.tell(hang="MetricsGet", at="controller")
    hanging = [proxy.call("MetricsGet", of(engine)) for _ in range(2)]
    async with asyncio.timeout(patience(20)):
        while len(await engine.tell(pending=True)) < 2:
            continue
    code, text = await proxy.error("MetricsGet", of(engine))
    assert code == "RESOURCE_EXHAUSTED"
    assert "2 of them for this client" in text
    for call in hanging:
        call.cancel()
    async with asyncio.timeout(patience(20)):
        while await engine.tell(pending=True):
            continue
    await proxy.call("VolumeGet", of(engine))


def test_what_a_call_holds_is_given_back_with_the_last_work_for_it() -> None:
    room = 10

    def take(size: int) -> None:
        nonlocal room
        if size > room:
            raise ResourceExhaustedError("no room")
        room -= size

    def give_back(size: int) -> None:
        nonlocal room
        room += size

    caller = Caller(Holder("h", "c"), take, give_back)
    caller.hold(4)
    caller.hold(5)
    with pytest.raises(ResourceExhaustedError):
        caller.hold(2)
    caller.retain()
    caller.release()
    assert room == 1
    caller.release()
    assert room == 10


def test_what_tells_of_each_snapshot_or_file_may_be_large() -> None:
    found = {
        method.name
        for module, service in (
            (controller_pb2, "ControllerService"),
            (syncagent_pb2, "SyncAgentService"),
            (spdk_pb2, "SPDKService"),
        )
        for method in module.DESCRIPTOR.services_by_name[service].methods
        if sizes.may_be_large(method)
    }
    assert {"ReplicaPrepareRebuild", "EngineGet", "ReplicaGet"} <= found
    assert not found & {"VolumeGet", "MetricsGet", "SnapshotPurgeStatus"}
    replica = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"].methods_by_name
    assert sizes.may_be_large(replica["ReplicaReload"])


async def test_a_large_answer_is_expected_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is ready for one costs more, so it is not made where answers are small."""
    asked: list[bool] = []
    opened = channels.Channels.to

    def counted(self: channels.Channels, address: str, *, large: bool = False) -> Any:
        asked.append(large)
        return opened(self, address, large=large)

    monkeypatch.setattr(channels.Channels, "to", counted)
    async with (
        flooding_engine(sizes.MAX_ANSWER_BYTES * 2, whole=True) as address,
        served_proxy(Timeouts(call=patience(1))) as served,
    ):
        for _ in range(2):
            await served.client.error("SnapshotList", {"address": address})
    # Each time the list of replicas, and the two of them, one of which does not answer.
    assert sorted(asked[:4]) == [False, False, False, True]
    assert sorted(asked[4:]) == [False, False, True]
