"""What managers poll through the proxy, against an engine and replicas that really listen."""

from typing import Any

import pytest

from instance_manager.adapters.engine import Timeouts
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2, syncagent_pb2
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, of, served_proxy
from tests.support.patience import patience

R1, R2, R3 = "vol1-r-1", "vol1-r-2", "vol1-r-3"
STATUSES = ("SnapshotPurgeStatus", "SnapshotCloneStatus", "BackupRestoreStatus", "SnapshotHashStatus")
AGENT_METHOD = {"BackupRestoreStatus": "RestoreStatus"}


async def status(proxy: ProxyClient, engine: EngineProcess, method: str) -> dict[str, Any]:
    """Return the statuses by name of the replica."""
    request: Any = of(engine)
    if method == "SnapshotHashStatus":
        request = pb.EngineSnapshotHashStatusRequest(proxy_engine_request=request, snapshot_name="s1")
    told = await proxy.call(method, request)
    names = {address: name for name, address in engine.replicas.items()}
    return {names[address]: each for address, each in told.status.items()}


async def rebuilding(engine: EngineProcess) -> str:
    """Let a third replica be one that is being rebuilt."""
    address = await engine.add(R3)
    await engine.tell(mode="WO", of=R3)
    return address


async def test_snapshots_are_listed_under_their_own_names(engine: EngineProcess, proxy: ProxyClient) -> None:
    for name in ("s1", "s2"):
        await proxy.call(
            "VolumeSnapshot",
            pb.EngineVolumeSnapshotRequest(
                proxy_engine_request=of(engine),
                snapshot_volume=controller_pb2.VolumeSnapshotRequest(name=name, labels={"k": name}),
            ),
        )
    disks = (await proxy.call("SnapshotList", of(engine))).disks
    assert {name: (each.name, each.parent, dict(each.children)) for name, each in disks.items()} == {
        "s1": ("s1", "", {"s2": True}),
        "s2": ("s2", "s1", {"volume-head": True}),
        "volume-head": ("volume-head", "s2", {}),
    }
    assert dict(disks["s1"].labels) == {"k": "s1"}
    assert disks["s1"].user_created
    assert not disks["volume-head"].user_created


async def test_all_of_250_snapshots_are_listed(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(snapshots=250)
    disks = (await proxy.call("SnapshotList", of(engine))).disks
    assert len(disks) == 251
    assert all(disks[f"n{number:03}"].labels["number"] == str(number) for number in range(250))
    assert disks["volume-head"].parent == "n249"


async def test_only_complete_replicas_are_asked_for_snapshots(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await rebuilding(engine)
    await engine.tell(mode="ERR", of=R2)
    await engine.calls()
    await proxy.call("SnapshotList", of(engine))
    assert {place for place, *_ in await engine.calls()} == {"controller", R1}


async def test_without_a_complete_replica_there_are_no_snapshots(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    for name in (R1, R2):
        await engine.tell(mode="ERR", of=name)
    assert not (await proxy.call("SnapshotList", of(engine))).disks


async def test_the_replica_with_the_most_snapshots_tells(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(file="volume-snap-more.img", of=R2, parent="")
    assert set((await proxy.call("SnapshotList", of(engine))).disks) == {"volume-head", "more"}


async def test_a_backing_file_is_no_snapshot(engine: EngineProcess, proxy: ProxyClient) -> None:
    for name in (R1, R2):
        await engine.tell(file="/images/base.img", of=name, parent="")
        await engine.tell(file="volume-snap-s1.img", of=name, parent="/images/base.img")
        await engine.tell(put="backing_file", of=name, value="/images/base.img")
    disks = (await proxy.call("SnapshotList", of(engine))).disks
    assert set(disks) == {"volume-head", "s1"}
    assert not disks["s1"].parent


async def test_a_file_that_is_no_snapshot_fails_the_list(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(file="odd-name", of=R2, parent="")
    code, text = await proxy.error("SnapshotList", of(engine))
    assert code == "UNKNOWN"
    assert "'odd-name'" in text


async def test_a_complete_replica_that_fails_fails_the_list(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(fail="ReplicaGet", at=R2, code="INTERNAL")
    code, text = await proxy.error("SnapshotList", of(engine))
    address = engine.replicas[R2]
    assert code == "INTERNAL"
    assert text == (
        f"cannot get the snapshots of {address}: failed to get replica {address.removeprefix('tcp://')}: "
        "rpc error: code = Internal desc = told to fail"
    )


@pytest.mark.parametrize("method", ["SnapshotList", "ReplicaRebuildingStatus", *STATUSES])
async def test_an_engine_that_fails_fails_the_call(
    engine: EngineProcess, proxy: ProxyClient, method: str
) -> None:
    await engine.tell(fail="ReplicaList", at="controller", code="ABORTED")
    request: Any = of(engine)
    if method == "SnapshotHashStatus":
        request = pb.EngineSnapshotHashStatusRequest(proxy_engine_request=request)
    assert await proxy.error(method, request) == (
        "ABORTED",
        f"failed to list replicas for volume {engine.address}: rpc error: code = Aborted desc = told to fail",
    )


async def test_an_engine_that_tells_of_a_crowd_of_replicas_is_not_believed(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    replicas = [controller_pb2.ControllerReplica() for _ in range(65)]
    answer = controller_pb2.ReplicaListReply(replicas=replicas).SerializeToString()
    await engine.tell(odd="ReplicaList", at="controller", answer=answer.hex())
    code, text = await proxy.error("SnapshotCloneStatus", of(engine))
    assert code == "UNKNOWN"
    assert text.endswith("it tells of 65 replicas; 64 are the most")


async def test_a_replica_at_no_address_has_an_error(engine: EngineProcess, proxy: ProxyClient) -> None:
    answer = controller_pb2.ReplicaListReply(
        replicas=[
            controller_pb2.ControllerReplica(
                address=controller_pb2.ReplicaAddress(address=address), mode=controller_pb2.ReplicaMode.RW
            )
            for address in ("", "tcp://h", "tcp://127.0.0.1:65534")
        ]
    )
    await engine.tell(odd="ReplicaList", at="controller", answer=answer.SerializeToString().hex())
    told = (await proxy.call("SnapshotPurgeStatus", of(engine))).status
    assert len(told) == 3
    assert all("cannot use the address" in each.error for each in told.values())


@pytest.mark.parametrize("method", STATUSES)
async def test_statuses_are_told_by_address(engine: EngineProcess, proxy: ProxyClient, method: str) -> None:
    told = await status(proxy, engine, method)
    assert told.keys() == {R1, R2}
    if method != "SnapshotHashStatus":
        assert not any(each.ListFields() for each in told.values())


@pytest.mark.parametrize("method", STATUSES)
@pytest.mark.parametrize("how", ["fails", "is away", "hangs", "answers oddly", "means another volume"])
async def test_a_replica_that_does_not_tell_its_status_has_an_error(
    engine: EngineProcess, method: str, how: str
) -> None:
    asked = AGENT_METHOD.get(method, method)
    match how:
        case "fails":
            await engine.tell(fail=asked, at=R2, code="NOT_FOUND")
            text = "rpc error: code = NotFound desc = told to fail"
        case "is away":
            await engine.tell(leave=R2)
            text = "rpc error: code = Unavailable desc = "
        case "hangs":
            await engine.tell(hang=asked, at=R2)
            text = "rpc error: code = DeadlineExceeded desc = "
        case "answers oddly":
            await engine.tell(odd=asked, at=R2, answer="ff")
            text = "rpc error: code = Internal desc = the answer is no ptypes."
        case _:
            await engine.tell(fail=asked, at=R2, code="FAILED_PRECONDITION", message="incorrect volume name")
            text = "rpc error: code = FailedPrecondition desc = incorrect volume name"
    async with served_proxy(Timeouts(call=patience(0.5)) if how == "hangs" else None) as served:
        told = await status(served.client, engine, method)
    assert text in told[R2].error
    fields = {field.name for field, _ in told[R2].ListFields()}
    assert fields == ({"error", "state"} if method == "SnapshotHashStatus" else {"error"})
    if method == "SnapshotHashStatus":
        assert told[R2].state == "error"
    else:
        assert not told[R1].ListFields(), "the other one tells its status all the same"


async def test_replicas_that_are_no_longer_used_are_asked_for_few_statuses(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(mode="ERR", of=R2)
    told = {method: set(await status(proxy, engine, method)) for method in STATUSES}
    assert told == {
        "SnapshotPurgeStatus": {R1},
        "BackupRestoreStatus": {R1},
        "SnapshotCloneStatus": {R1, R2},
        "SnapshotHashStatus": {R1, R2},
    }


async def test_a_call_to_a_replica_carries_the_name_of_the_volume_alone(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    for method in ("SnapshotHashStatus", "SnapshotPurgeStatus"):
        await status(proxy, engine, method)
    for place, _, _, metadata in await engine.calls():
        assert metadata["volume-name"] == "vol1"
        assert ("instance-name" in metadata) == (place == "controller")


@pytest.mark.parametrize(
    ("busy", "text"),
    [
        ({"mode": "ERR", "of": R2}, "is in ERR mode"),
        ({"mode": "WO", "of": R2}, "is in WO mode"),
        ({"put": "rebuilding", "of": R2, "value": True}, "is rebuilding"),
    ],
)
async def test_a_replica_that_has_no_checksums_now_has_an_error(
    engine: EngineProcess, proxy: ProxyClient, busy: dict[str, Any], text: str
) -> None:
    await engine.tell(**busy)
    told = await status(proxy, engine, "SnapshotHashStatus")
    assert told[R2] == syncagent_pb2.SnapshotHashStatusResponse(
        state="error", error=f"cannot get the checksum because {engine.replicas[R2]} {text}"
    )
    assert "no such file or directory" in told[R1].error


async def test_only_what_is_being_rebuilt_is_asked_how_that_goes(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    assert not await status(proxy, engine, "ReplicaRebuildingStatus")
    await rebuilding(engine)
    told: dict[str, Any] = {
        "is_rebuilding": True,
        "progress": 30,
        "state": "in_progress",
        "from_replica_address_list": ["tcp://a:1", "tcp://b:2"],
    }
    answer = syncagent_pb2.ReplicaRebuildStatusResponse(**told)
    await engine.tell(odd="ReplicaRebuildStatus", at=R3, answer=answer.SerializeToString().hex())
    assert await status(proxy, engine, "ReplicaRebuildingStatus") == {R3: answer}


async def test_the_one_address_of_an_older_engine_becomes_a_list(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await rebuilding(engine)
    answer = syncagent_pb2.ReplicaRebuildStatusResponse(from_replica_address="tcp://a:1")
    await engine.tell(odd="ReplicaRebuildStatus", at=R3, answer=answer.SerializeToString().hex())
    told = (await status(proxy, engine, "ReplicaRebuildingStatus"))[R3]
    assert list(told.from_replica_address_list) == ["tcp://a:1"]


async def test_a_volume_that_is_being_restored_is_not_being_rebuilt(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await rebuilding(engine)
    answer = syncagent_pb2.RestoreStatusResponse(dest_file_name="volume-snap-x.img")
    await engine.tell(odd="RestoreStatus", at=R3, answer=answer.SerializeToString().hex())
    assert not await status(proxy, engine, "ReplicaRebuildingStatus")


async def test_how_a_rebuild_goes_is_unknown_while_nobody_tells_whether_it_is_a_restore(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await rebuilding(engine)
    await engine.tell(fail="RestoreStatus", at=R3, code="UNAVAILABLE")
    code, text = await proxy.error("ReplicaRebuildingStatus", of(engine))
    assert code == "UNAVAILABLE"
    assert text.endswith("rpc error: code = Unavailable desc = told to fail")


async def test_a_rebuild_that_is_not_told_of_has_an_error(engine: EngineProcess, proxy: ProxyClient) -> None:
    await rebuilding(engine)
    await engine.tell(fail="ReplicaRebuildStatus", at=R3, code="UNKNOWN")
    told = await status(proxy, engine, "ReplicaRebuildingStatus")
    assert told[R3].error.endswith("rpc error: code = Unknown desc = told to fail")


async def test_the_file_of_a_restore_has_another_name_here(engine: EngineProcess, proxy: ProxyClient) -> None:
    fields: dict[str, Any] = {
        "is_restoring": True,
        "last_restored": "b0",
        "progress": 20,
        "error": "slow",
        "state": "in_progress",
        "backup_url": "vfs:///b",
        "current_restoring_backup": "b1",
    }
    answer = syncagent_pb2.RestoreStatusResponse(dest_file_name="volume-snap-x.img", **fields)
    await engine.tell(odd="RestoreStatus", at=R1, answer=answer.SerializeToString().hex())
    told = await status(proxy, engine, "BackupRestoreStatus")
    assert told[R1] == pb.EngineBackupRestoreStatus(filename="volume-snap-x.img", **fields)


async def test_replicas_are_asked_at_once(engine: EngineProcess) -> None:
    """One that hangs takes as long as all of them."""
    await engine.tell(hang="SnapshotPurgeStatus", at="*")
    async with served_proxy() as served:
        call = served.client.call("SnapshotPurgeStatus", of(engine))
        while await engine.tell(pending=True) != ["SnapshotPurgeStatus"] * 2:
            pass
        call.cancel()
        while await engine.tell(pending=True):
            pass
