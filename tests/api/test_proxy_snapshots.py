"""What the proxy does to the snapshots of a volume on all of its replicas."""

import asyncio
from typing import Any

import pytest

from instance_manager.adapters.engine import Timeouts
from instance_manager.api.interceptors import answer_budget
from instance_manager.app.engine import completion
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, of, served_proxy
from tests.support.patience import patience

R1, R2, R3 = "vol1-r-1", "vol1-r-2", "vol1-r-3"


async def take(proxy: ProxyClient, engine: EngineProcess, *names: str) -> None:
    for name in names:
        request = pb.EngineVolumeSnapshotRequest(
            proxy_engine_request=of(engine), snapshot_volume=controller_pb2.VolumeSnapshotRequest(name=name)
        )
        await proxy.call("VolumeSnapshot", request)
    await engine.calls()


def removing(engine: EngineProcess, *names: str) -> Any:
    return pb.EngineSnapshotRemoveRequest(proxy_engine_request=of(engine), names=names)


def purging(engine: EngineProcess, *, skip: bool = False) -> Any:
    return pb.EngineSnapshotPurgeRequest(proxy_engine_request=of(engine), skip_if_in_progress=skip)


def hashing(engine: EngineProcess, name: str, *, again: bool = False) -> Any:
    return pb.EngineSnapshotHashRequest(proxy_engine_request=of(engine), snapshot_name=name, rehash=again)


async def removed(proxy: ProxyClient, engine: EngineProcess) -> set[str]:
    disks = (await proxy.call("SnapshotList", of(engine))).disks
    return {name for name, disk in disks.items() if disk.removed}


async def asked(engine: EngineProcess, method: str) -> list[tuple[str, dict[str, Any]]]:
    """Return place and request of each call of a method."""
    return [(place, request) for place, name, request, _ in await engine.calls() if name == method]


async def test_snapshots_are_marked_on_every_replica_and_purged(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await take(proxy, engine, "s1", "s2", "s3")
    await proxy.call("SnapshotRemove", removing(engine, "s1", "s2"))
    calls = await engine.calls()
    assert [(place, request["name"]) for place, name, request, _ in calls if name == "DiskMarkAsRemoved"] == [
        (R1, "s1"),
        (R2, "s1"),
        (R1, "s2"),
        (R2, "s2"),
    ]
    assert len([name for _, name, _, _ in calls if name == "SnapshotHashCancel"]) == 4
    assert await removed(proxy, engine) == {"s1", "s2"}
    await proxy.call("SnapshotPurge", purging(engine))
    assert set((await proxy.call("SnapshotList", of(engine))).disks) == {"s3", "volume-head"}


async def test_a_rebuilding_replica_keeps_snapshots_from_being_marked(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await take(proxy, engine, "s1")
    await engine.tell(put="rebuilding", of=R2, value=True)
    text = f"cannot remove a snapshot because {engine.replicas[R2]} is rebuilding"
    assert await proxy.error("SnapshotRemove", removing(engine, "s1")) == ("UNKNOWN", text)
    assert not await removed(proxy, engine)


@pytest.mark.parametrize("mode", ["WO", "ERR"])
async def test_a_replica_that_is_not_complete_keeps_snapshots_from_being_marked(
    engine: EngineProcess, proxy: ProxyClient, mode: str
) -> None:
    await take(proxy, engine, "s1")
    await engine.tell(mode=mode, of=R2)
    text = f"can only mark snapshot as removed from replica in mode RW, got {mode}"
    assert await proxy.error("SnapshotRemove", removing(engine, "s1")) == ("UNKNOWN", text)
    assert not await removed(proxy, engine), "nothing is done before all is known to be right"


async def test_one_snapshot_that_cannot_be_marked_does_not_keep_the_next_from_it(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await take(proxy, engine, "s1", "s2")
    await engine.tell(fail="SnapshotHashCancel", at=R2, code="INTERNAL")
    code, text = await proxy.error("SnapshotRemove", removing(engine, "s1", "s2"))
    assert code == "INTERNAL"
    assert "snapshot s2 on" in text
    assert await removed(proxy, engine) == {"s1", "s2"}


@pytest.mark.parametrize(
    ("place", "method"), [("controller", "ReplicaList"), (R2, "DiskMarkAsRemoved"), (R1, "ReplicaGet")]
)
async def test_what_does_not_answer_is_not_asked_for_each_of_many_snapshots(
    engine: EngineProcess, place: str, method: str
) -> None:
    await engine.tell(hang=method, at=place)
    async with served_proxy(Timeouts(call=patience(0.5))) as served:
        code, text = await served.client.error("SnapshotRemove", removing(engine, "s1", "s2", "s3"))
        assert code == "DEADLINE_EXCEEDED"
        assert text.endswith("; 2 more snapshots were not tried")
        assert [at for at, _ in await asked(engine, method)].count(place) == 1
        code, text = await served.client.error("SnapshotRemove", removing(engine, "s3"))
        assert "not tried" not in text


async def test_a_removal_is_completed_when_its_caller_goes_away(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await take(proxy, engine, "s1", "s2")
    await engine.tell(hold="cancel")
    call = proxy.call("SnapshotRemove", removing(engine, "s1", "s2"))
    await engine.called("SnapshotHashCancel")
    call.cancel()
    await engine.tell(release="cancel")
    while await removed(proxy, engine) != {"s1", "s2"}:
        pass


@pytest.mark.parametrize("skip", [False, True])
async def test_a_purge_that_goes_on_is_no_reason_to_begin_another(
    engine: EngineProcess, proxy: ProxyClient, skip: bool
) -> None:
    await engine.tell(hold="purge")
    await proxy.call("SnapshotPurge", purging(engine))
    await engine.calls()
    if skip:
        await proxy.call("SnapshotPurge", purging(engine, skip=True))
    else:
        code, text = await proxy.error("SnapshotPurge", purging(engine))
        assert code == "UNKNOWN"
        assert text == "; ".join(
            f"{engine.replicas[each]}: cannot purge: it is already purging" for each in (R1, R2)
        )
    assert not await asked(engine, "SnapshotPurge")


@pytest.mark.parametrize("skip", [False, True])
async def test_a_replica_that_begins_to_purge_meanwhile_is_no_failure_if_skipping(
    engine: EngineProcess, proxy: ProxyClient, skip: bool
) -> None:
    text = "cannot initiate purge because it is already purging"
    await engine.tell(fail="SnapshotPurge", at=R2, code="UNKNOWN", message=text)
    if skip:
        await proxy.call("SnapshotPurge", purging(engine, skip=True))
    else:
        code, told = await proxy.error("SnapshotPurge", purging(engine))
        address = engine.replicas[R2]
        failed = f"failed to purge snapshots on {address}: rpc error: code = Unknown desc = {text}"
        assert (code, told) == ("UNKNOWN", f"{address}: {failed}")


async def test_no_purge_begins_while_a_replica_is_rebuilding_or_away(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(put="rebuilding", of=R1, value=True)
    await engine.tell(leave=R2)
    code, text = await proxy.error("SnapshotPurge", purging(engine, skip=True))
    assert code == "UNKNOWN"
    first, _, second = text.partition("; ")
    assert first == f"{engine.replicas[R1]}: cannot purge: it is rebuilding"
    assert second.startswith(f"{engine.replicas[R2]}: failed to get replica ")
    assert "rpc error: code = Unavailable desc = " in second
    assert not await asked(engine, "SnapshotPurge")


async def test_checksums_are_computed_on_every_replica(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    await proxy.call("SnapshotHash", hashing(engine, "s1", again=True))
    told = await asked(engine, "SnapshotHash")
    assert sorted(told) == [(name, {"snapshot_name": "s1", "rehash": True}) for name in (R1, R2)]


@pytest.mark.parametrize(
    ("busy", "text"),
    [
        ({"mode": "ERR", "of": R2}, "is in ERR mode"),
        ({"mode": "WO", "of": R2}, "is in WO mode"),
        ({"put": "rebuilding", "of": R2, "value": True}, "is rebuilding"),
        ({"hold": "hash"}, "is hashing another snapshot"),
    ],
)
async def test_a_busy_replica_is_told_of_in_the_words_that_managers_wait_for(
    engine: EngineProcess, proxy: ProxyClient, busy: dict[str, Any], text: str
) -> None:
    await take(proxy, engine, "s1", "s2")
    await engine.tell(**busy)
    if "hold" in busy:
        await proxy.call("SnapshotHash", hashing(engine, "s2"))
        await engine.calls()
    code, told = await proxy.error("SnapshotHash", hashing(engine, "s1"))
    where = engine.replicas[R1 if "hold" in busy else R2]
    assert (code, told) == ("UNKNOWN", f"cannot request hashing snapshot because {where} {text}")
    assert not await asked(engine, "SnapshotHash")


async def test_a_replica_that_cannot_be_asked_to_hash_gives_its_own_error(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(fail="SnapshotHashLockState", at=R2, code="NOT_FOUND")
    code, text = await proxy.error("SnapshotHash", hashing(engine, "s1"))
    assert code == "NOT_FOUND"
    assert text.endswith("rpc error: code = NotFound desc = told to fail")
    assert "cannot request hashing" not in text


async def test_replicas_that_fail_to_hash_are_told_of_together(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(fail="SnapshotHash", at="*", code="ABORTED")
    code, text = await proxy.error("SnapshotHash", hashing(engine, "s1"))
    assert code == "UNKNOWN"
    assert [each.partition(": ")[0] for each in text.split("; ")] == [
        engine.replicas[R1],
        engine.replicas[R2],
    ]
    assert text.count("rpc error: code = Aborted desc = told to fail") == 2


def cloning(engine: EngineProcess, source: EngineProcess, **fields: Any) -> Any:
    return pb.EngineSnapshotCloneRequest(
        proxy_engine_request=of(engine),
        from_engine_address=source.address,
        from_engine_name=source.name,
        from_volume_name=source.volume,
        snapshot_name="s1",
        **fields,
    )


async def test_a_clone_copies_a_snapshot_of_another_volume(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    with EngineProcess(volume="vol2") as target:
        fields = {"export_backing_image_if_exist": True, "file_sync_http_client_timeout": 7}
        await proxy.call("SnapshotClone", cloning(target, engine, **fields))
        assert set((await proxy.call("SnapshotList", of(target))).disks) == {"s1", "volume-head"}
        told = await asked(target, "SnapshotClone")
        status = (await proxy.call("SnapshotCloneStatus", of(target))).status
    request = {
        "from_address": engine.replicas[R1],
        "to_host": "127.0.0.1",
        "snapshot_file_name": "s1",
        "from_volume_name": "vol1",
        **fields,
    }
    assert sorted(told) == [("vol2-r-1", request), ("vol2-r-2", request)]
    assert all((each.state, each.progress) == ("complete", 100) for each in status.values())


async def test_a_clone_takes_as_long_as_it_takes(engine: EngineProcess, proxy: ProxyClient) -> None:
    await take(proxy, engine, "s1")
    with EngineProcess(volume="vol2") as target:
        await target.tell(hold="clone")
        async with served_proxy(Timeouts(call=patience(1.0))) as served:
            call = served.client.call("SnapshotClone", cloning(target, engine))
            await target.called("SnapshotClone")
            seen: set[tuple[bool, int]] = set()
            async with asyncio.timeout(patience(20)):
                while seen != {(True, 50)}:  # one replica is told after the other
                    status = (await served.client.call("SnapshotCloneStatus", of(target))).status
                    seen = {(each.is_cloning, each.progress) for each in status.values()}
            await target.tell(release="clone")
            await call
            await target.tell(hold="clone")
            code, text = await served.client.error(
                "SnapshotClone", cloning(target, engine, grpc_timeout_seconds=1)
            )
    assert code == "UNKNOWN"
    assert text.count("rpc error: code = DeadlineExceeded") == 2


async def test_a_clone_needs_complete_replicas_on_both_sides(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    with EngineProcess(volume="vol2") as target:
        await target.tell(mode="ERR", of="vol2-r-2")
        code, text = await proxy.error("SnapshotClone", cloning(target, engine))
        assert code == "UNKNOWN"
        assert text == f"cannot clone to {target.replicas['vol2-r-2']}: it is in ERR mode"
        for name in target.replicas:
            await target.tell(mode="ERR", of=name)
        code, text = await proxy.error("SnapshotClone", cloning(engine, target))
        assert code == "UNKNOWN"
        assert text == "cannot find a replica in mode RW in the source volume vol2"


async def test_a_clone_to_a_replica_at_no_address_says_so(engine: EngineProcess, proxy: ProxyClient) -> None:
    odd = controller_pb2.ReplicaAddress(address="tcp://nowhere")
    each = controller_pb2.ControllerReplica(address=odd, mode=controller_pb2.ReplicaMode.RW)
    told = controller_pb2.ReplicaListReply(replicas=[each]).SerializeToString()
    await engine.tell(odd="ReplicaList", at="controller", answer=told.hex())
    code, text = await proxy.error("SnapshotClone", cloning(engine, engine))
    assert code == "UNKNOWN"
    assert "cannot use the address 'tcp://nowhere'" in text


async def test_a_clone_whose_source_is_another_volume_is_refused_by_it(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    with EngineProcess(volume="vol2") as target:
        request = cloning(target, engine)
        request.from_volume_name = "other"
        code, text = await proxy.error("SnapshotClone", request)
    assert code == "FAILED_PRECONDITION"
    assert "incorrect volume name other" in text


async def test_changes_that_take_long_leave_room_for_the_answers_of_others(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there would be room for if each held as much as the longest answer takes."""
    monkeypatch.setattr(answer_budget, "MAX_UNSENT_BYTES", 1 << 20)
    changes = 40
    monkeypatch.setattr(completion, "MOST_OF_ENGINE", changes)
    with EngineProcess(volume="vol2") as target:
        await target.tell(hang="SnapshotClone", at="*")
        async with served_proxy() as served:
            calls = [served.client.call("SnapshotClone", cloning(target, engine)) for _ in range(changes)]
            async with asyncio.timeout(patience(30)):
                while len(await target.tell(pending=True)) < 2 * changes:
                    assert not any(call.done() for call in calls)
                    await served.client.call("SnapshotCloneStatus", of(target))
            for call in calls:
                call.cancel()
