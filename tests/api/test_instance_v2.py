"""Instances of the v2 data engine, down to an SPDK service that really listens."""

import pytest

from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.core.errors import (
    InvalidArgumentError,
)
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.spdk.process import SpdkProcess
from tests.support.v2_requests import KINDS, SPECS, V2, create_request, delete_request, get_request


@pytest.mark.parametrize("kind", KINDS)
async def test_each_type_is_created_told_listed_and_deleted(v2: InstanceV2, kind: str) -> None:
    made = await v2.create(create_request(kind))
    spec = made.spec
    assert (spec.name, spec.type, made.status.state) == (SPECS[kind].name, kind, "running")
    assert (spec.data_engine, spec.backend_store_driver) == (V2, common_pb2.v2)
    assert spec.volume_name == ("" if kind == "replica" else "v"), "SPDK tells none of a replica"
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
