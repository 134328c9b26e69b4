"""How the proxy adds replicas to a volume, and removes them."""

from typing import Any

import pytest

from instance_manager.adapters.engine import Timeouts
from instance_manager.app.engine import rebuild
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import common_pb2, controller_pb2, replica_pb2, syncagent_pb2
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, nobody, of, served_proxy
from tests.support.patience import patience

R1, R2, R3 = "vol1-r-1", "vol1-r-2", "vol1-r-3"
SIZE = 16 << 20
OF_READS = {"ReplicaGet", "ReplicaList", "VolumeGet", "VersionDetailGet"}


def adding(engine: EngineProcess, address: str, **fields: Any) -> Any:
    return pb.EngineReplicaAddRequest(
        proxy_engine_request=of(engine),
        replica_address=address,
        replica_name=R3,
        size=SIZE,
        current_size=SIZE,
        **fields,
    )


async def take(proxy: ProxyClient, engine: EngineProcess, name: str) -> None:
    request = pb.EngineVolumeSnapshotRequest(
        proxy_engine_request=of(engine), snapshot_volume=controller_pb2.VolumeSnapshotRequest(name=name)
    )
    await proxy.call("VolumeSnapshot", request)
    await engine.calls()


async def modes(proxy: ProxyClient, engine: EngineProcess) -> dict[str, str]:
    names = {address: name for name, address in engine.replicas.items()}
    told = (await proxy.call("ReplicaList", of(engine))).replica_list.replicas
    return {names[each.address.address]: controller_pb2.ReplicaMode.Name(each.mode) for each in told}


async def changes(engine: EngineProcess) -> list[tuple[str, str]]:
    """Return place and method of every call that is no mere look."""
    return [(place, name) for place, name, _, _ in await engine.calls() if name not in OF_READS]


async def test_a_replica_is_rebuilt_step_by_step(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    address = await engine.add(R3)
    local = pb.EngineReplicaLocalSync(source_path="/a", target_path="/b")
    await proxy.call(
        "ReplicaAdd",
        adding(engine, address, fast_sync=True, file_sync_http_client_timeout=7, local_sync=local),
    )
    calls = await engine.calls()
    assert [(place, name) for place, name, _, _ in calls if name not in OF_READS] == [
        ("controller", "ControllerReplicaCreate"),
        ("controller", "ReplicaRebuildConcurrentSyncLimitGet"),
        (R3, "RebuildingSet"),
        ("controller", "ReplicaPrepareRebuild"),
        (R3, "FilesSync"),
        (R3, "ReplicaReload"),
        ("controller", "ReplicaVerifyRebuild"),
        (R3, "RebuildingSet"),
    ]
    requests = {name: request for _, name, request, _ in calls}
    sync = requests["FilesSync"]
    names = [each["from_file_name"] for each in sync.pop("sync_file_info_list")]
    assert names[:2] == ["volume-snap-s1.img", "volume-snap-s1.img.meta"]
    assert sync == {
        "from_address": engine.replicas[R1],
        "from_address_map": {engine.replicas[R1]: True},
        "to_host": "127.0.0.1",
        "fast_sync": True,
        "file_sync_http_client_timeout": 7,
        "local_sync": {"source_path": "/a", "target_path": "/b"},
    }
    assert requests["ControllerReplicaCreate"] == {"address": address, "snapshot_required": True}
    assert requests["ReplicaVerifyRebuild"] == {"address": address, "instanceName": R3}
    assert await modes(proxy, engine) == {R1: "RW", R2: "RW", R3: "RW"}
    instances = {metadata.get("instance-name") for place, _, _, metadata in calls if place == R3}
    assert instances == {R3}


@pytest.mark.parametrize(("api", "limit", "count"), [(6, 1, 1), (6, 2, 2), (6, 9, 2), (5, 1, 2)])
async def test_a_rebuild_copies_from_as_many_replicas_as_it_may(
    engine: EngineProcess, proxy: ProxyClient, api: int, limit: int, count: int
) -> None:
    address = await engine.add(R3)
    version = controller_pb2.VersionDetailGetReply(
        version=controller_pb2.VersionOutput(controllerAPIVersion=api)
    )
    await engine.tell(odd="VersionDetailGet", at="controller", answer=version.SerializeToString().hex())
    set_limit = pb.EngineReplicaRebuildConcurrentSyncLimitSetRequest(
        proxy_engine_request=of(engine), limit=limit
    )
    await proxy.call("ReplicaRebuildConcurrentSyncLimitSet", set_limit)
    await engine.calls()
    await proxy.call("ReplicaAdd", adding(engine, address))
    [sync] = [request for _, name, request, _ in await engine.calls() if name == "FilesSync"]
    assert sync["from_address_map"] == {engine.replicas[name]: True for name in (R1, R2)[:count]}


async def test_the_first_replica_of_a_volume_has_nothing_to_copy(proxy: ProxyClient) -> None:
    with EngineProcess("--replicas", "0") as engine:
        address = await engine.add(R3)
        await proxy.call("ReplicaAdd", adding(engine, address))
        calls = await engine.calls()
        assert [(name, request) for _, name, request, _ in calls if name not in OF_READS] == [
            ("VolumeStart", {"replicaAddresses": [address], "size": str(SIZE), "currentSize": str(SIZE)})
        ]
        assert await modes(proxy, engine) == {R3: "RW"}


async def test_a_smaller_replica_is_made_larger_first(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    await engine.tell(put="size", of=R3, value=SIZE // 2)
    await proxy.call("ReplicaAdd", adding(engine, address))
    told = await changes(engine)
    assert told[:3] == [(R3, "ReplicaOpen"), (R3, "ReplicaExpand"), (R3, "ReplicaClose")]
    assert await modes(proxy, engine) == {R1: "RW", R2: "RW", R3: "RW"}


async def test_a_smaller_replica_that_is_open_stays_open(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    await engine.tell(put="size", of=R3, value=SIZE // 2)
    await engine.tell(put="state", of=R3, value="open")
    _, text = await proxy.error("ReplicaAdd", adding(engine, address))
    assert "must be closed" in text  # which is for the engine to say
    assert await changes(engine) == [(R3, "ReplicaExpand"), ("controller", "ControllerReplicaCreate")]


async def test_a_larger_replica_is_refused(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    await engine.tell(put="size", of=R3, value=2 * SIZE)
    code, text = await proxy.error("ReplicaAdd", adding(engine, address))
    assert code == "UNKNOWN"
    assert str(2 * SIZE) in text
    assert await changes(engine) == []


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("size", ["", "abc"])
async def test_a_replica_whose_size_cannot_be_read_is_not_added(
    engine: EngineProcess, proxy: ProxyClient, size: str, restore: bool
) -> None:
    address = await engine.add(R3)
    told = replica_pb2.ReplicaGetResponse(replica=replica_pb2.Replica(size=size, state="closed"))
    await engine.tell(odd="ReplicaGet", at=R3, answer=told.SerializeToString().hex())
    code, text = await proxy.error("ReplicaAdd", adding(engine, address, restore=restore))
    assert code == "UNKNOWN"
    assert f"cannot read its size {size!r}" in text
    assert await changes(engine) == ([(R3, "ReplicaClose")] if restore else [])


async def test_an_interrupted_rebuild_is_forgotten_first(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    await engine.tell(put="rebuilding", of=R3, value=True)
    await proxy.call("ReplicaAdd", adding(engine, address))
    told = await changes(engine)
    assert told[:3] == [(R3, "ReplicaOpen"), (R3, "RebuildingSet"), (R3, "ReplicaClose")]


async def test_a_replica_of_a_volume_that_is_restored_gets_no_data_here(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    address = await engine.add(R3)
    await proxy.call("ReplicaAdd", adding(engine, address, restore=True))
    calls = await engine.calls()
    assert [(name, request) for _, name, request, _ in calls if name not in OF_READS] == [
        ("ReplicaClose", {}),
        ("ControllerReplicaCreate", {"address": address}),
    ]
    assert await modes(proxy, engine) == {R1: "RW", R2: "RW", R3: "WO"}


async def test_a_replica_of_another_size_is_not_restored(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    await engine.tell(put="size", of=R3, value=SIZE // 2)
    code, _ = await proxy.error("ReplicaAdd", adding(engine, address, restore=True))
    assert code == "UNKNOWN"
    assert await changes(engine) == [(R3, "ReplicaClose")]


async def test_a_replica_that_is_complete_already_is_not_rebuilt(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    address = engine.replicas[R2]
    request = adding(engine, address)
    request.replica_name = R2
    assert await proxy.error("ReplicaAdd", request) == (
        "UNKNOWN",
        f"replica {address} is not in mode WO: RW",
    )


async def test_without_a_complete_replica_nothing_is_rebuilt(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    address = await engine.add(R3)
    for name in (R1, R2):
        await engine.tell(mode="ERR", of=name)
    code, text = await proxy.error("ReplicaAdd", adding(engine, address))
    assert code == "UNKNOWN"
    assert "no replica in mode RW" in text


async def test_the_file_that_is_written_to_is_never_copied(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    files = [common_pb2.SyncFileInfo(from_file_name="volume-head-001.img", to_file_name="x")]
    answer = controller_pb2.ReplicaPrepareRebuildReply(sync_file_info_list=files)
    await engine.tell(odd="ReplicaPrepareRebuild", at="controller", answer=answer.SerializeToString().hex())
    code, text = await proxy.error("ReplicaAdd", adding(engine, address))
    assert code == "UNKNOWN"
    assert "volume-head-001.img" in text
    assert "FilesSync" not in {name for _, name in await changes(engine)}


@pytest.mark.parametrize(
    "step",
    [
        ("controller", "VolumeGet"),
        (R3, "ReplicaGet"),
        ("controller", "ControllerReplicaCreate"),
        ("controller", "ReplicaList"),
        ("controller", "VersionDetailGet"),
        ("controller", "ReplicaRebuildConcurrentSyncLimitGet"),
        (R3, "RebuildingSet"),
        ("controller", "ReplicaPrepareRebuild"),
        (R3, "FilesSync"),
        (R3, "ReplicaReload"),
        ("controller", "ReplicaVerifyRebuild"),
    ],
)
@pytest.mark.parametrize(
    ("code", "spelled"),
    [("CANCELLED", "Canceled"), ("DEADLINE_EXCEEDED", "DeadlineExceeded"), ("UNAVAILABLE", "Unavailable")],
)
async def test_managers_tell_a_lost_connection_from_other_failures(
    engine: EngineProcess, proxy: ProxyClient, step: tuple[str, str], code: str, spelled: str
) -> None:
    place, method = step
    address = await engine.add(R3)
    await engine.tell(fail=method, at=place, code=code, message="replica add is already in progress")
    told = await proxy.error("ReplicaAdd", adding(engine, address))
    assert told[0] == code
    assert told[1].endswith(f"rpc error: code = {spelled} desc = replica add is already in progress")


async def test_a_replica_that_is_away_is_unavailable(engine: EngineProcess, proxy: ProxyClient) -> None:
    with nobody() as address:
        code, text = await proxy.error("ReplicaAdd", adding(engine, f"tcp://{address}"))
    assert code == "UNAVAILABLE"
    assert text.startswith(f"failed to get replica {address}: rpc error: code = Unavailable desc = ")
    assert await changes(engine) == []


@pytest.mark.parametrize("address", ["", "tcp://", "tcp://127.0.0.1:65534", "unix:/x"])
async def test_a_replica_without_an_address_is_refused(
    engine: EngineProcess, proxy: ProxyClient, address: str
) -> None:
    code, _ = await proxy.error("ReplicaAdd", adding(engine, address))
    assert code == "INVALID_ARGUMENT"
    assert await engine.calls() == []


async def test_a_rebuild_takes_as_long_as_it_takes_and_tells_how_it_goes(engine: EngineProcess) -> None:
    address = await engine.add(R3)
    await engine.tell(hold="rebuild")
    async with served_proxy(Timeouts(call=patience(1.0))) as served:
        call = served.client.call("ReplicaAdd", adding(engine, address))
        await engine.called("FilesSync")
        told = (await served.client.call("ReplicaRebuildingStatus", of(engine))).status
        assert dict(told) == {
            address: syncagent_pb2.ReplicaRebuildStatusResponse(
                is_rebuilding=True,
                state="in_progress",
                progress=30,
                from_replica_address_list=[engine.replicas[R1]],
            )
        }
        await engine.tell(release="rebuild")
        await call
        assert await modes(served.client, engine) == {R1: "RW", R2: "RW", R3: "RW"}


async def test_a_rebuild_has_the_timeout_that_it_was_given(engine: EngineProcess, proxy: ProxyClient) -> None:
    address = await engine.add(R3)
    await engine.tell(hold="rebuild")
    code, text = await proxy.error("ReplicaAdd", adding(engine, address, grpc_timeout_seconds=1))
    assert code == "DEADLINE_EXCEEDED"
    assert "rpc error: code = DeadlineExceeded" in text
    assert await modes(proxy, engine) == {R1: "RW", R2: "RW", R3: "WO"}, "managers remove it"


async def test_a_rebuild_is_completed_when_its_caller_goes_away(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    address = await engine.add(R3)
    await engine.tell(hold="rebuild")
    call = proxy.call("ReplicaAdd", adding(engine, address))
    await engine.called("FilesSync")
    call.cancel()
    await engine.tell(release="rebuild")
    while await modes(proxy, engine) != {R1: "RW", R2: "RW", R3: "RW"}:
        pass


@pytest.mark.parametrize("asked", [1 << 40, (1 << 63) - 1])
async def test_a_rebuild_may_take_a_day_at_most(
    engine: EngineProcess, proxy: ProxyClient, asked: int
) -> None:
    address = await engine.add(R3)
    await proxy.call("ReplicaAdd", adding(engine, address, grpc_timeout_seconds=asked))
    [sync] = [request for _, name, request, _ in await engine.calls() if name == "FilesSync"]
    assert sync["grpc_timeout_seconds"] == str(24 * 3600)


@pytest.mark.parametrize("spelled", ["{}", "tcp://{}", "http://{}/v1"])
async def test_a_replica_that_is_being_added_is_not_added_a_second_time(
    engine: EngineProcess, proxy: ProxyClient, spelled: str
) -> None:
    address = await engine.add(R3)
    await engine.tell(hold="rebuild")
    first = proxy.call("ReplicaAdd", adding(engine, address))
    await engine.called("FilesSync")
    first.cancel()  # the manager is restarted; the change goes on
    again = spelled.format(address.removeprefix("tcp://"))
    code, text = await proxy.error("ReplicaAdd", adding(engine, again))
    assert code == "UNKNOWN"
    assert text == f"cannot add {again}: replica add is already in progress", "managers look for it"
    assert await engine.calls() == []
    await engine.tell(release="rebuild")
    while await modes(proxy, engine) != {R1: "RW", R2: "RW", R3: "RW"}:
        pass
    await proxy.call("SnapshotPurge", pb.EngineSnapshotPurgeRequest(proxy_engine_request=of(engine)))


async def test_a_replica_can_be_added_again_when_that_has_failed(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    address = await engine.add(R3)
    await engine.tell(fail="ReplicaPrepareRebuild", at="controller", code="ABORTED")
    await proxy.error("ReplicaAdd", adding(engine, address))
    await engine.tell(work=True)
    await proxy.call("ReplicaAdd", adding(engine, address))
    assert await modes(proxy, engine) == {R1: "RW", R2: "RW", R3: "RW"}


def removing(engine: EngineProcess, address: str) -> Any:
    return pb.EngineReplicaRemoveRequest(
        proxy_engine_request=of(engine), replica_address=address, replica_name=R2
    )


async def test_a_replica_is_removed_and_computes_no_longer(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    await proxy.call("ReplicaRemove", removing(engine, engine.replicas[R2]))
    told = await changes(engine)
    assert told == [(R2, "SnapshotHashCancel")] * 2 + [("controller", "ReplicaDelete")]
    assert await modes(proxy, engine) == {R1: "RW"}
    await proxy.call("ReplicaRemove", removing(engine, engine.replicas[R2]))
    assert await modes(proxy, engine) == {R1: "RW"}


@pytest.mark.parametrize("how", ["fails", "is away", "hangs", "has an odd file"])
async def test_a_broken_replica_is_removed_all_the_same(
    engine: EngineProcess, proxy: ProxyClient, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    address = engine.replicas[R2]
    match how:
        case "fails":
            await engine.tell(fail="SnapshotHashCancel", at=R2, code="INTERNAL")
        case "is away":
            await engine.tell(leave=R2)
        case "hangs":
            monkeypatch.setattr(rebuild, "CANCEL_SECONDS", 0.5)
            await engine.tell(hang="SnapshotHashCancel", at=R2)
        case _:
            await engine.tell(file="odd", of=R1, parent="")
    await proxy.call("ReplicaRemove", removing(engine, address))
    assert await modes(proxy, engine) == {R1: "RW"}


async def test_an_engine_that_does_not_remove_a_replica_says_why(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(fail="ReplicaDelete", at="controller", code="UNKNOWN")
    code, text = await proxy.error("ReplicaRemove", removing(engine, engine.replicas[R2]))
    assert code == "UNKNOWN"
    assert text.endswith("rpc error: code = Unknown desc = told to fail")
