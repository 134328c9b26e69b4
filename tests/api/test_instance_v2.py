"""Requests with data_engine v2, down to an SPDK service that really listens."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from instance_manager.adapters.spdk import SpdkConnection, Timeouts
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.methods import status_of
from instance_manager.app import spdk as use_cases
from instance_manager.core.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InstanceManagerError,
    InvalidArgumentError,
    NotFoundError,
    UnimplementedError,
    UpstreamError,
)
from instance_manager.core.instance import InstanceType
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.spdk.harness import SpdkProcess

WITHIN = 30.0
V2 = common_pb2.DATA_ENGINE_V2
GROUP = common_pb2.ShardGroupSpec(
    data_chunks=2,
    parity_chunks=1,
    strip_size_kb=64,
    shards={
        f"v-{slot}": common_pb2.ShardEndpoint(address=f"10.0.0.{slot}:1", slot_index=slot)
        for slot in range(3)
    },
    salvage_requested=True,
)
SPECS: dict[str, pb.InstanceSpec] = {
    "engine": pb.InstanceSpec(
        name="v-e-0",
        initiator_address="10.0.0.9",
        target_address="10.0.0.8:1",
        upgrade_required=True,
        spdk_instance_spec=pb.SpdkInstanceSpec(
            replica_address_map={"v-r-0": "10.0.0.1:1"},
            size=1 << 30,
            frontend="spdk-tcp-blockdev",
            salvage_requested=True,
            ublk_queue_depth=16,
            ublk_number_of_queue=2,
            snapshot_max_count=9,
        ),
    ),
    "engine-frontend": pb.InstanceSpec(
        name="v-ef-0",
        engine_name="v-e-0",
        target_address="10.0.0.8:1",
        spdk_instance_spec=pb.SpdkInstanceSpec(size=1 << 30, frontend="ublk", nvme_tcp_nr_io_queues=3),
    ),
    "replica": pb.InstanceSpec(
        name="v-r-0",
        spdk_instance_spec=pb.SpdkInstanceSpec(
            disk_name="disk", disk_uuid="disk-uuid", size=1 << 30, backing_image_name="image"
        ),
    ),
    "shard": pb.InstanceSpec(
        name="v-2",
        spdk_instance_spec=pb.SpdkInstanceSpec(
            slot_index=2, size=1 << 20, lvs_name="disk", lvs_uuid="disk-uuid"
        ),
    ),
    "shardgroup": pb.InstanceSpec(
        name="v-sg", spdk_instance_spec=pb.SpdkInstanceSpec(size=1 << 30, shard_group_spec=GROUP)
    ),
}
KINDS = list(SPECS)
IDENTIFIED = [kind for kind in KINDS if kind != "shardgroup"]
SERVICE_NAMES = {
    "engine": "Engine",
    "engine-frontend": "EngineFrontend",
    "replica": "Replica",
    "shard": "Shard",
    "shardgroup": "ShardGroup",
}


def create_request(kind: str, **changed: Any) -> pb.InstanceCreateRequest:
    """Return the request that creates one of a type, with some fields of the spec changed."""
    spec = pb.InstanceSpec(type=kind, volume_name="v", port_count=1, data_engine=V2)
    spec.MergeFrom(SPECS[kind])
    for field, value in changed.items():
        setattr(spec, field, value)
    return pb.InstanceCreateRequest(spec=spec)


def delete_request(kind: str, uuid: str = "", *, cleanup: bool = True) -> pb.InstanceDeleteRequest:
    return pb.InstanceDeleteRequest(
        name=SPECS[kind].name, type=kind, uuid=uuid, cleanup_required=cleanup, data_engine=V2
    )


def get_request(kind: str) -> pb.InstanceGetRequest:
    return pb.InstanceGetRequest(name=SPECS[kind].name, type=kind, data_engine=V2)


@pytest.fixture
async def v2(spdk: SpdkProcess) -> AsyncIterator[InstanceV2]:
    connection = SpdkConnection(spdk.address, lambda: None, Timeouts(read=WITHIN, change=WITHIN))
    yield InstanceV2(connection.instances)
    await connection.close()


# --- the five types ---


@pytest.mark.parametrize("kind", KINDS)
async def test_each_type_is_created_told_listed_and_deleted(v2: InstanceV2, kind: str) -> None:
    made = await v2.create(create_request(kind))
    spec = made.spec
    assert (spec.name, spec.type, made.status.state) == (SPECS[kind].name, kind, "running")
    assert (spec.data_engine, spec.backend_store_driver) == (V2, common_pb2.v2)
    assert await v2.get(get_request(kind)) == made
    assert await v2.list() == {spec.name: made}
    deleted = await v2.delete(delete_request(kind))
    assert deleted.deleted
    assert (deleted.spec.name, deleted.spec.type, deleted.spec.data_engine) == (spec.name, kind, V2)
    assert await v2.list() == {}


async def test_all_types_are_listed_together(v2: InstanceV2) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    assert {name: each.spec.type for name, each in (await v2.list()).items()} == {
        spec.name: kind for kind, spec in SPECS.items()
    }


async def test_the_spdk_service_gets_all_that_was_asked_for(spdk: SpdkProcess, v2: InstanceV2) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    requests = dict(await spdk.tell(calls=True))
    assert requests["EngineCreate"] == {
        "name": "v-e-0",
        "volume_name": "v",
        "spec_size": str(1 << 30),
        "replica_address_map": {"v-r-0": "10.0.0.1:1"},
        "frontend": "spdk-tcp-blockdev",
        "port_count": 1,
        "upgrade_required": True,
        "initiator_address": "10.0.0.9",
        "target_address": "10.0.0.8:1",
        "salvage_requested": True,
        "ublk_queue_depth": 16,
        "ublk_number_of_queue": 2,
        "snapshot_max_count": 9,
    }
    assert requests["EngineFrontendCreate"] == {
        "name": "v-ef-0",
        "volume_name": "v",
        "engine_name": "v-e-0",
        "spec_size": str(1 << 30),
        "target_address": "10.0.0.8:1",
        "frontend": "ublk",
        "nvme_tcp_nr_io_queues": 3,
    }
    assert requests["ReplicaCreate"] == {
        "name": "v-r-0",
        "lvs_name": "disk",
        "lvs_uuid": "disk-uuid",
        "spec_size": str(1 << 30),
        "port_count": 1,
        "backing_image_name": "image",
    }
    assert requests["ShardCreate"] == {
        "volume_name": "v",
        "slot_index": 2,
        "size_bytes": str(1 << 20),
        "lvs_name": "disk",
        "lvs_uuid": "disk-uuid",
        "port_count": 1,
    }
    group = requests["ShardGroupCreate"]
    assert group["spec"].pop("shards")["v-1"] == {"address": "10.0.0.1:1", "slot_index": 1}
    assert group == {
        "name": "v-sg",
        "volume_name": "v",
        "spec_size": str(1 << 30),
        "port_count": 1,
        "spec": {"data_chunks": 2, "parity_chunks": 1, "strip_size_kb": 64, "salvage_requested": True},
    }


async def test_the_engine_of_a_sharded_volume_is_asked_for_as_such(spdk: SpdkProcess, v2: InstanceV2) -> None:
    request = create_request("engine")
    request.data_layout_type = common_pb2.DATA_LAYOUT_TYPE_SHARDED
    await v2.create(request)
    assert (await spdk.request("EngineCreate"))["data_layout_type"] == "DATA_LAYOUT_TYPE_SHARDED"


async def test_an_engine_tells_its_ports_target_and_device(v2: InstanceV2) -> None:
    status = (await v2.create(create_request("engine"))).status
    assert status.port_start == status.port_end > 0
    assert status.target_port_start == status.target_port_end == status.port_start + 1000
    assert status.standby_target_port_start == status.standby_target_port_end == status.port_start + 2000
    assert (status.ublk_id, status.endpoint, status.frontend) == (7, "/dev/longhorn/v", "spdk-tcp-blockdev")


async def test_a_frontend_tells_its_engine_and_paths(v2: InstanceV2) -> None:
    status = (await v2.create(create_request("engine-frontend"))).status
    assert (status.engine_name, status.frontend, status.endpoint) == ("v-e-0", "ublk", "/dev/nvme0n1")
    assert (status.active_path, status.preferred_path) == ("10.0.0.1:3000", "10.0.0.2:3000")
    assert status.target_port_start == status.target_port_end > 0
    assert list(status.paths) == [
        pb.EngineFrontendNvmeTcpPath(
            engine_name="v-e-0",
            target_ip="10.0.0.1",
            target_port=3000,
            nqn="nqn.v-ef-0",
            nguid="0a0b",
            ana_state="optimized",
        )
    ]


async def test_a_replica_tells_its_range_of_ports(v2: InstanceV2) -> None:
    status = (await v2.create(create_request("replica", port_count=5))).status
    assert status.port_end - status.port_start == 4


@pytest.mark.parametrize("kind", ["shard", "shardgroup"])
async def test_shards_and_their_groups_tell_their_port(v2: InstanceV2, kind: str) -> None:
    status = (await v2.create(create_request(kind))).status
    assert status.port_start == status.port_end > 0


# --- a delete with a UUID ---


@pytest.mark.parametrize("cleanup", [True, False])
@pytest.mark.parametrize("kind", IDENTIFIED)
async def test_a_delete_with_the_uuid_of_an_earlier_instance_hits_nothing(
    spdk: SpdkProcess, v2: InstanceV2, kind: str, cleanup: bool
) -> None:
    first = await v2.create(create_request(kind))
    await v2.delete(delete_request(kind))
    second = await v2.create(create_request(kind))
    assert first.status.uuid != second.status.uuid
    await spdk.calls()
    with pytest.raises(NotFoundError, match=second.status.uuid):
        await v2.delete(delete_request(kind, first.status.uuid, cleanup=cleanup))
    assert await spdk.calls() == [f"{SERVICE_NAMES[kind]}Get"]
    assert await v2.get(get_request(kind)) == second


@pytest.mark.parametrize("kind", IDENTIFIED)
async def test_a_delete_with_its_uuid_hits_an_instance(v2: InstanceV2, kind: str) -> None:
    made = await v2.create(create_request(kind))
    deleted = await v2.delete(delete_request(kind, made.status.uuid))
    assert deleted.status.uuid == made.status.uuid
    assert await v2.list() == {}


@pytest.mark.parametrize("cleanup", [True, False])
async def test_a_group_is_not_deleted_by_a_uuid_that_nobody_can_confirm(
    v2: InstanceV2, cleanup: bool
) -> None:
    await v2.create(create_request("shardgroup"))
    with pytest.raises(FailedPreconditionError, match="the SPDK service gives it none"):
        await v2.delete(delete_request("shardgroup", "any", cleanup=cleanup))
    assert set(await v2.list()) == {"v-sg"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_delete_of_what_is_not_there_is_not_found(v2: InstanceV2, kind: str) -> None:
    for uuid in ("", "any"):
        with pytest.raises(UpstreamError) as error:
            await v2.delete(delete_request(kind, uuid))
        assert error.value.code == "NOT_FOUND"


async def test_without_cleanup_engines_stay_and_what_holds_data_is_detached(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    await spdk.calls()
    for kind in KINDS:
        assert (await v2.delete(delete_request(kind, cleanup=False))).deleted
    assert await spdk.tell(calls=True) == [
        [f"{SERVICE_NAMES[kind]}Delete", {"name": SPECS[kind].name}]
        for kind in ("replica", "shard", "shardgroup")
    ]
    assert set(await v2.list()) == {"v-e-0", "v-ef-0"}


async def test_no_instance_that_takes_the_name_meanwhile_is_hit_by_a_delete(v2: InstanceV2) -> None:
    """Deletes of the old UUID race against the re-creation of the name."""
    uuid = (await v2.create(create_request("replica"))).status.uuid
    for _ in range(50):
        stale = [v2.delete(delete_request("replica", uuid)) for _ in range(3)]
        plain = v2.delete(delete_request("replica"))
        answers = await asyncio.gather(
            stale[0], plain, stale[1], v2.create(create_request("replica")), stale[2], return_exceptions=True
        )
        created = answers[3]
        assert isinstance(created, pb.InstanceResponse)
        told = await v2.get(get_request("replica"))
        assert told.status.uuid == created.status.uuid
        uuid = created.status.uuid


async def test_a_create_waits_for_a_delete_whose_caller_has_gone_away(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    first = await v2.create(create_request("replica"))
    await spdk.tell(hang="ReplicaDelete")
    deleting = asyncio.create_task(v2.delete(delete_request("replica", first.status.uuid)))
    await spdk.called("ReplicaDelete")
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    creating = asyncio.create_task(v2.create(create_request("replica")))
    # Time enough for the create, if it did not wait.
    for _ in range(20):
        assert (await v2.get(get_request("replica"))).status.uuid == first.status.uuid
    assert set(await spdk.calls()) == {"ReplicaGet"}
    creating.cancel()


async def test_who_waits_too_long_for_another_request_is_told(
    spdk: SpdkProcess, v2: InstanceV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "TURN_PATIENCE", 0.1)
    await spdk.tell(hang="ReplicaCreate")
    first = asyncio.create_task(v2.create(create_request("replica")))
    await spdk.called("ReplicaCreate")
    with pytest.raises(DeadlineExceededError, match="working on another request"):
        await v2.delete(delete_request("replica"))
    first.cancel()


# --- what cannot be ---


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (pb.InstanceCreateRequest(), "without a spec"),
        (create_request("engine", type=""), "instance type ''"),
        (create_request("engine", type="disk"), "instance type 'disk'"),
        (create_request("engine", name="../x"), "name '../x'"),
        (create_request("engine", name=""), "empty name"),
        (create_request("engine", volume_name=""), "without volume_name"),
        (create_request("engine-frontend", volume_name=""), "without volume_name"),
        (create_request("shard", volume_name=""), "without volume_name"),
        (create_request("shardgroup", volume_name=""), "without volume_name"),
        (create_request("replica", port_count=-1), "port_count of -1"),
    ],
)
async def test_a_create_that_lacks_something_is_refused_here(
    spdk: SpdkProcess, v2: InstanceV2, request_: pb.InstanceCreateRequest, told: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        await v2.create(request_)
    assert await spdk.calls() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_create_without_the_part_for_v2_is_refused(v2: InstanceV2, kind: str) -> None:
    request = create_request(kind)
    request.spec.ClearField("spdk_instance_spec")
    with pytest.raises(InvalidArgumentError, match="spdk_instance_spec"):
        await v2.create(request)


@pytest.mark.parametrize(
    ("kind", "field", "told"),
    [
        ("replica", "disk_name disk_uuid", "disk_name or disk_uuid"),
        ("shard", "lvs_name lvs_uuid", "lvs_name or lvs_uuid"),
        ("shardgroup", "shard_group_spec", "shard_group_spec"),
    ],
)
async def test_what_a_type_needs_is_asked_for(v2: InstanceV2, kind: str, field: str, told: str) -> None:
    request = create_request(kind)
    for each in field.split():
        request.spec.spdk_instance_spec.ClearField(each)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=told):
        await v2.create(request)


async def test_a_sharded_volume_has_no_replicas_and_one_address(v2: InstanceV2) -> None:
    sharded = common_pb2.DATA_LAYOUT_TYPE_SHARDED
    replica, engine = create_request("replica"), create_request("engine")
    replica.data_layout_type = engine.data_layout_type = sharded
    with pytest.raises(InvalidArgumentError, match="'shard'"):
        await v2.create(replica)
    engine.spec.spdk_instance_spec.replica_address_map["other"] = "10.0.0.2:1"
    with pytest.raises(InvalidArgumentError, match="2 addresses"):
        await v2.create(engine)
    engine.data_layout_type = 5  # type: ignore[assignment]
    with pytest.raises(InvalidArgumentError, match="data_layout_type 5"):
        await v2.create(engine)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_chunks": 0}, "0 data and 1 parity"),
        ({"parity_chunks": 0}, "2 data and 0 parity"),
        ({"data_chunks": 1}, "'v-2' into slot 2"),
        ({"shards": {"twice": common_pb2.ShardEndpoint(slot_index=1)}}, "two shards into slot 1"),
    ],
)
async def test_a_group_whose_layout_does_not_work_out_is_refused(
    v2: InstanceV2, change: dict[str, Any], told: str
) -> None:
    request = create_request("shardgroup")
    group = request.spec.spdk_instance_spec.shard_group_spec
    for field, value in change.items():
        if isinstance(value, dict):
            group.shards["twice"].CopyFrom(value["twice"])
        else:
            setattr(group, field, value)
    with pytest.raises(InvalidArgumentError, match=told):
        await v2.create(request)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_empty_or_endless_name_is_refused(v2: InstanceV2, kind: str) -> None:
    for name in ("", "x" * 252):
        with pytest.raises(InvalidArgumentError):
            await v2.get(pb.InstanceGetRequest(name=name, type=kind, data_engine=V2))
        with pytest.raises(InvalidArgumentError):
            await v2.delete(pb.InstanceDeleteRequest(name=name, type=kind, data_engine=V2))


async def test_logs_and_replacements_do_not_exist_in_v2(v2: InstanceV2) -> None:
    with pytest.raises(UnimplementedError):
        v2.replace(pb.InstanceReplaceRequest())
    with pytest.raises(UnimplementedError):
        v2.log(pb.InstanceLogRequest())


# --- what only v2 can do ---


@pytest.mark.parametrize("kind", ["engine", "engine-frontend"])
async def test_engines_and_frontends_are_suspended_and_resumed(v2: InstanceV2, kind: str) -> None:
    name = (await v2.create(create_request(kind))).spec.name
    await v2.suspend(pb.InstanceSuspendRequest(name=name, type=kind, data_engine=V2))
    assert (await v2.get(get_request(kind))).status.state == "suspended"
    await v2.resume(pb.InstanceResumeRequest(name=name, type=kind, data_engine=V2))
    assert (await v2.get(get_request(kind))).status.state == "running"


@pytest.mark.parametrize("kind", ["replica", "shard", "shardgroup"])
async def test_what_has_no_io_of_its_own_is_not_suspended(v2: InstanceV2, kind: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"cannot suspend a {kind}"):
        await v2.suspend(pb.InstanceSuspendRequest(name="x", type=kind, data_engine=V2))
    with pytest.raises(InvalidArgumentError, match=f"cannot resume a {kind}"):
        await v2.resume(pb.InstanceResumeRequest(name="x", type=kind, data_engine=V2))


async def test_a_frontend_is_switched_over(spdk: SpdkProcess, v2: InstanceV2) -> None:
    await v2.create(create_request("engine-frontend"))
    request = pb.InstanceSwitchOverTargetRequest(
        data_engine=V2,
        name="v-ef-0",
        type="engine-frontend",
        target_address="10.0.0.7:1",
        engine_name="v-e-1",
        switchover_phase="connect",
    )
    await v2.switch_over(request)
    status = (await v2.get(get_request("engine-frontend"))).status
    assert (status.active_path, status.engine_name) == ("10.0.0.7:1", "v-e-1")
    assert (await spdk.request("EngineFrontendSwitchOver"))["switchover_phase"] == "connect"
    request.ClearField("target_address")
    with pytest.raises(InvalidArgumentError, match="set target_address"):
        await v2.switch_over(request)
    request.type = "engine"
    with pytest.raises(InvalidArgumentError, match="only engine-frontend"):
        await v2.switch_over(request)


async def test_the_target_of_an_engine_is_deleted(v2: InstanceV2) -> None:
    await v2.create(create_request("engine"))
    await v2.delete_target(pb.InstanceDeleteTargetRequest(name="v-e-0", type="engine", data_engine=V2))
    assert (await v2.get(get_request("engine"))).status.target_port_start == 0
    with pytest.raises(InvalidArgumentError, match="delete the target of a replica"):
        await v2.delete_target(pb.InstanceDeleteTargetRequest(name="v-r-0", type="replica", data_engine=V2))


async def test_level_and_flags_of_its_log_are_those_of_the_spdk_service(v2: InstanceV2) -> None:
    await v2.log_set_level(pb.LogSetLevelRequest(data_engine=V2, level="debug"))
    await v2.log_set_flags(pb.LogSetFlagsRequest(data_engine=V2, flags="bdev,nvmf"))
    assert (await v2.log_get_level(pb.LogGetLevelRequest())).level == "debug"
    assert (await v2.log_get_flags(pb.LogGetFlagsRequest())).flags == "bdev,nvmf"


# --- a service that is not well ---


@pytest.mark.parametrize(
    "code", ["INTERNAL", "ABORTED", "CANCELLED", "UNKNOWN", "PERMISSION_DENIED", "DATA_LOSS"]
)
async def test_every_code_of_the_service_reaches_the_caller(
    spdk: SpdkProcess, v2: InstanceV2, code: str
) -> None:
    await spdk.tell(fail="EngineGet", code=code, message="bdev trouble")
    with pytest.raises(
        InstanceManagerError, match=f"the SPDK service at {spdk.address} says: bdev trouble"
    ) as error:
        await v2.get(get_request("engine"))
    assert status_of(error.value).name == code


async def test_without_the_service_all_but_the_list_is_unavailable_at_once(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    await spdk.kill()
    begin = time.monotonic()
    for kind in KINDS:
        for call in (
            v2.create(create_request(kind)),
            v2.get(get_request(kind)),
            v2.delete(delete_request(kind, "u")),
        ):
            with pytest.raises(UpstreamError) as error:
                await call
            assert error.value.code == "UNAVAILABLE"
    assert await v2.list() == {}
    assert time.monotonic() - begin < 10


async def test_while_the_service_is_away_instances_are_listed_as_they_were_known_last(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    await v2.delete(delete_request("replica"))
    before = await v2.list()
    # Made after the last list, so that only the answer to its creation tells of it.
    before["v-r-0"] = await v2.create(create_request("replica"))
    await spdk.kill()
    away = await v2.list()
    assert set(away) == set(before)
    for name, instance in away.items():
        assert instance.status.state == before[name].status.state == "running"
        assert instance.status.uuid == before[name].status.uuid
        assert instance.status.error_msg.startswith("this is what was known last: ")
        assert "is unavailable" in instance.status.error_msg
    await spdk.start()
    async with asyncio.timeout(WITHIN):
        while any(each.status.error_msg for each in (await v2.list()).values()):
            pass
    assert await v2.list() == before


async def test_a_list_does_not_wait_long_for_a_service_that_hangs(
    spdk: SpdkProcess, v2: InstanceV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "LIST_PATIENCE", 0.5)
    monkeypatch.setattr(use_cases, "LIST_PATIENCE_IN_TROUBLE", 0.1)
    await v2.create(create_request("shard"))
    await spdk.tell(hang="*")
    for patience in ("0.5 s", "0.1 s"):
        (instance,) = (await v2.list()).values()
        assert patience in instance.status.error_msg
    await spdk.tell(work="*")
    monkeypatch.setattr(use_cases, "LIST_PATIENCE_IN_TROUBLE", WITHIN)
    (instance,) = (await v2.list()).values()
    assert instance.status.error_msg == ""


async def test_trouble_with_one_type_leaves_the_others_as_they_are(spdk: SpdkProcess, v2: InstanceV2) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    await spdk.tell(fail="ReplicaList", code="INTERNAL")
    await spdk.tell(set="Engine", name="v-e-0", fields={"state": "error", "error_msg": "bdev gone"})
    listed = await v2.list()
    assert {name for name, each in listed.items() if each.status.error_msg.startswith("this is")} == {"v-r-0"}
    assert listed["v-e-0"].status.error_msg == "bdev gone"


async def test_a_service_that_is_older_than_a_type_has_none_of_it(spdk: SpdkProcess, v2: InstanceV2) -> None:
    await v2.create(create_request("engine"))
    for prefix in ("EngineFrontend", "Shard", "ShardGroup"):
        await spdk.tell(fail=f"{prefix}List", code="UNIMPLEMENTED")
    (instance,) = (await v2.list()).values()
    assert instance.status.error_msg == ""


@pytest.mark.parametrize("kind", InstanceType)
async def test_where_v2_is_switched_off_a_request_tells_how_to_switch_it_on(kind: InstanceType) -> None:
    off = InstanceV2(None)
    for call in (
        off.create(create_request(kind)),
        off.get(get_request(kind)),
        off.delete(delete_request(kind)),
    ):
        with pytest.raises(FailedPreconditionError, match="--spdk-enabled"):
            await call
    assert await off.list() == {}
