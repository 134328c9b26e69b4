"""What the proxy finds out about the replicas of v2 engines, each at the SPDK service of its own node."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import json_format

from instance_manager.adapters.engine import Timeouts
from instance_manager.adapters.engine.controllers import MOST_REPLICAS
from instance_manager.pb.ptypes.controller_pb2 import ReplicaMode
from tests.support.engine.served import ProxyClient, served_proxy
from tests.support.patience import patience
from tests.support.service_client import WITHIN
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.volume import (
    ADDRESSES,
    ENGINE,
    HERE,
    TCP,
    THERE,
    WHICH,
    asking,
    make_volume,
)

AWAY = "127.0.0.3:20002"
"""Nobody is there."""


@pytest.fixture
async def impatient(spdk: SpdkProcess) -> AsyncIterator[ProxyClient]:
    async with served_proxy(Timeouts(call=patience(0.3)), spdk=spdk.address) as running:
        yield running.client


async def move(spdk: SpdkProcess, replica: str, address: str) -> None:
    """Let a replica have another address."""
    addresses = ADDRESSES | {replica: address}
    await spdk.tell(set="Engine", name=ENGINE, fields={"replica_address_map": addresses})


def as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


async def test_replicas_are_listed_by_name_in_the_form_that_managers_match(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r1="ERR", r2="WO")
    replicas = (await v2_proxy.call("ReplicaList", WHICH)).replica_list.replicas
    assert [(each.address.address, each.address.instanceName, each.mode) for each in replicas] == [
        (TCP[HERE], HERE, ReplicaMode.ERR),
        (TCP[THERE], THERE, ReplicaMode.WO),
    ]


async def test_a_replica_without_an_address_or_a_mode_is_none(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    fields = {
        "replica_address_map": {"a": "h:1", HERE: ADDRESSES[HERE]},
        "replica_mode_map": {"b": "RW", HERE: "RW"},
    }
    await spdk.tell(set="Engine", name=ENGINE, fields=fields)
    replicas = (await v2_proxy.call("ReplicaList", WHICH)).replica_list.replicas
    assert [each.address.instanceName for each in replicas] == [HERE]


async def test_an_engine_with_too_many_replicas_is_not_believed(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    names = [f"r{number}" for number in range(MOST_REPLICAS + 1)]
    fields = {
        "replica_address_map": dict.fromkeys(names, "h:1"),
        "replica_mode_map": dict.fromkeys(names, "WO"),
    }
    await spdk.tell(set="Engine", name=ENGINE, fields=fields)
    code, _ = await v2_proxy.error("ReplicaRebuildingStatus", WHICH)
    assert code == "INTERNAL"
    assert await spdk.calls() == ["EngineGet"]


async def test_each_rebuild_is_told_by_the_service_of_its_replica(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r2="WO")
    status = {
        "src_replica_name": HERE,
        "src_replica_address": ADDRESSES[HERE],
        "state": "complete",
        "progress": 100,
        "total_state": "in_progress",
        "total_progress": 40,
        "error": "odd",
    }
    await spdk_elsewhere.tell(put="Rebuild", name=THERE, fields=status)
    told = as_json(await v2_proxy.call("ReplicaRebuildingStatus", WHICH))["status"]
    assert told == {
        TCP[THERE]: {
            "is_rebuilding": True,
            "error": "odd",
            "progress": 40,
            "state": "in_progress",
            "from_replica_address": TCP[HERE],
            "from_replica_address_list": [TCP[HERE]],
        }
    }
    assert await spdk_elsewhere.tell(calls=True) == [
        ["ReplicaRebuildingDstShallowCopyCheck", {"name": THERE}]
    ]
    for state in ("complete", "error"):
        await spdk_elsewhere.tell(put="Rebuild", name=THERE, fields={"total_state": state})
        told = (await v2_proxy.call("ReplicaRebuildingStatus", WHICH)).status
        assert (told[TCP[THERE]].is_rebuilding, told[TCP[THERE]].state) == (False, state)


async def test_a_replica_that_does_not_tell_how_its_rebuild_goes_has_an_error(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r1="WO", r2="WO")
    await move(spdk, THERE, AWAY)
    await spdk.tell(put="Rebuild", name=HERE, fields={"total_state": "in_progress"})
    told = (await v2_proxy.call("ReplicaRebuildingStatus", WHICH)).status
    assert told[TCP[HERE]].is_rebuilding
    assert told[f"tcp://{AWAY}"].error.startswith(
        f"failed to get rebuild status of tcp://{AWAY}: rpc error: "
    )


async def test_a_rebuild_is_limited_where_its_replica_is_as_far_as_it_can_be_reached(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r1="WO", r2="WO")
    await spdk_elsewhere.tell(put="Rebuild", name=THERE, fields={"total_state": "in_progress"})
    await v2_proxy.call("ReplicaRebuildingQosSet", asking(qos_limit_mbps="7"))
    asked = {"name": THERE, "qos_limit_mbps": "7"}
    assert await spdk_elsewhere.tell(calls=True) == [["ReplicaRebuildingDstSetQosLimit", asked]]
    assert await spdk.calls() == ["EngineGet", "ReplicaRebuildingDstSetQosLimit"], "it fails, nobody is told"
    await make_volume(spdk)
    await v2_proxy.call("ReplicaRebuildingQosSet", asking(qos_limit_mbps="7"))
    assert await spdk.calls() == ["EngineGet"]


# --- clones ---


async def test_a_clone_is_told_by_the_service_of_each_replica(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    status = {
        "is_cloning": True,
        "src_replica_name": "src-r",
        "src_replica_address": "10.0.0.9:1",
        "snapshot_name": "s",
        "state": "in_progress",
        "progress": 40,
    }
    await spdk.tell(put="Clone", name=HERE, fields=status)
    await spdk_elsewhere.tell(fail="*", code="INTERNAL", message="broken")
    told = as_json(await v2_proxy.call("SnapshotCloneStatus", WHICH))["status"]
    assert told[TCP[HERE]] == {
        "is_cloning": True,
        "progress": 40,
        "state": "in_progress",
        "from_replica_address": "tcp://10.0.0.9:1",
        "snapshot_name": "s",
    }
    assert told[TCP[THERE]]["error"].endswith("rpc error: code = Internal desc = broken")


async def test_replicas_that_cannot_be_reached_say_nothing_of_a_clone(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    await move(spdk, THERE, AWAY)
    await spdk.tell(put="Clone", name=HERE, fields={"state": "complete"})
    told = as_json(await v2_proxy.call("SnapshotCloneStatus", WHICH))["status"]
    assert told == {TCP[HERE]: {"state": "complete"}}
    await spdk.tell(fail="ReplicaSnapshotCloneDstStatusCheck", code="UNAVAILABLE")
    told = as_json(await v2_proxy.call("SnapshotCloneStatus", WHICH))["status"]
    assert told == {TCP[HERE]: {}}
    await make_volume(spdk, r1="ERR", r2="WO")
    assert (await v2_proxy.error("SnapshotCloneStatus", WHICH))[0] == "INTERNAL"


async def test_a_replica_that_hangs_says_nothing_of_a_clone(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, impatient: ProxyClient
) -> None:
    await make_volume(spdk)
    await spdk.tell(put="Clone", name=HERE, fields={"state": "complete"})
    await spdk_elsewhere.tell(hang="*")
    assert (await impatient.call("SnapshotCloneStatus", WHICH)).status.keys() == {TCP[HERE]}


# --- trouble ---


async def test_a_replica_that_hangs_costs_no_more_than_its_timeout(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, impatient: ProxyClient
) -> None:
    await make_volume(spdk, r1="WO", r2="WO")
    await spdk.tell(put="Rebuild", name=HERE, fields={"total_state": "in_progress"})
    await spdk_elsewhere.tell(hang="*")
    told = (await impatient.call("ReplicaRebuildingStatus", WHICH)).status
    assert told[TCP[HERE]].state == "in_progress"
    assert "code = DeadlineExceeded" in told[TCP[THERE]].error


async def test_a_read_of_several_calls_ends_when_its_caller_goes_away(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk, r1="WO")
    await spdk.tell(hang="ReplicaRebuildingDstShallowCopyCheck")
    call = v2_proxy.call("ReplicaRebuildingStatus", WHICH)
    await spdk.called("ReplicaRebuildingDstShallowCopyCheck")
    call.cancel()
    async with asyncio.timeout(WITHIN):
        while await spdk.tell(pending=True):
            pass
