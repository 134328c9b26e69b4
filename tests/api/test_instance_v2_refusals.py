"""What cannot be in v2 is refused here, with the reason."""

from typing import Any

import pytest

from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.core.errors import (
    InvalidArgumentError,
    UnimplementedError,
)
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.spdk.process import SpdkProcess
from tests.support.v2_requests import KINDS, V2, create_request


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (pb.InstanceCreateRequest(), "without a spec"),
        (create_request("engine", type=""), "no instance type given"),
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
