"""Calls of the proxy about v2 engines that are one call of the SPDK service."""

import asyncio
import uuid
from typing import Any

import pytest

from instance_manager.adapters.engine import Timeouts
from instance_manager.api.proxy.forwards_v2 import FORWARDS_V2, IMAGES
from instance_manager.api.proxy.refused import REFUSED_BY_V2
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.spdkrpc import spdk_pb2
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import SERVICE, ProxyClient, nobody, of, served_proxy
from tests.support.patience import patience
from tests.support.service_client import WITHIN
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.volume import ENGINE, FRONTEND, THERE, WHICH, asking, make_volume

LINKED = {"replica_name": "src-r", "engine_name": "src-e", "engine_address": "10.0.0.9:1"}
FIELDS: dict[str, dict[str, Any]] = {
    "VolumeExpand": {"expand": {"size": str(32 << 20)}},
    "VolumeSnapshotMaxCountSet": {"count": {"count": 7}},
    "VolumeSnapshot": {"snapshot_volume": {"name": "s1", "labels": {"k": "v"}}},
    "SnapshotRevert": {"name": "s0"},
    "SnapshotClone": {
        "from_engine_address": "10.0.0.9:1",
        "from_engine_name": "src-e",
        "from_volume_name": "src",
        "snapshot_name": "s0",
        "clone_mode": "CLONE_MODE_LINKED_CLONE",
        "dst_replica_src_replica_pair_map": {THERE: "src-r"},
    },
    "SnapshotHash": {"snapshot_name": "s0", "rehash": True},
    "SnapshotHashStatus": {"snapshot_name": "s0"},
    "ReplicaAdd": {
        "replica_name": "v-r-3",
        "replica_address": "tcp://[::1]:20003",
        "fast_sync": True,
        "linked_clone_source": LINKED,
    },
    "ReplicaRemove": {"replica_name": THERE, "replica_address": "tcp://127.0.0.2:20002"},
}
ASKED: dict[str, dict[str, Any]] = {
    "VolumeExpand": {"name": FRONTEND, "size": str(32 << 20)},
    "VolumeSnapshotMaxCountSet": {"name": ENGINE, "count": 7},
    "VolumeSnapshot": {
        "name": FRONTEND,
        "snapshot_name": "s1",
        "user_created": True,
        "labels": {"k": "v"},
    },
    "SnapshotRevert": {"name": FRONTEND, "snapshot_name": "s0"},
    "SnapshotPurge": {"name": FRONTEND},
    "SnapshotClone": {
        "name": ENGINE,
        "snapshot_name": "s0",
        "src_engine_name": "src-e",
        "src_engine_address": "10.0.0.9:1",
        "clone_mode": "CLONE_MODE_LINKED_CLONE",
        "dst_replica_src_replica_pair_map": {THERE: "src-r"},
    },
    "SnapshotHash": {"name": ENGINE, "snapshot_name": "s0", "rehash": True},
    "SnapshotHashStatus": {"name": ENGINE, "snapshot_name": "s0"},
    "BackupRestoreStatus": {"engine_name": ENGINE},
    "ReplicaAdd": {
        "engine_frontend_name": FRONTEND,
        "replica_name": "v-r-3",
        "replica_address": "[::1]:20003",
        "fast_sync": True,
        "linked_clone_source": LINKED,
    },
    "ReplicaRemove": {
        "engine_name": ENGINE,
        "replica_name": THERE,
        "replica_address": "127.0.0.2:20002",
    },
    "MetricsGet": {"name": ENGINE},
}
"""What the SPDK service is asked then."""
METHODS = sorted(FORWARDS_V2)
ABOUT_ENGINES = sorted(
    set(SERVICE.methods_by_name)
    - IMAGES.keys()
    - {"SPDKBackingImageWatch", "CleanupBackupMountPoints", "RemountReadOnlyVolume", "ServerVersionGet"}
)
BY_FRONTEND = {name for name, each in FORWARDS_V2.items() if each.needs == "frontend"} | {"SnapshotRemove"}


def request(method: str, **which: Any) -> dict[str, Any]:
    if SERVICE.methods_by_name[method].input_type is pb.ProxyEngineRequest.DESCRIPTOR:
        return WHICH | which
    return asking(**FIELDS.get(method, {})) | {"proxy_engine_request": WHICH | which}


async def prepare(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await make_volume(spdk)
    await v2_proxy.call("VolumeSnapshot", asking(snapshot_volume={"name": "s0"}))
    await spdk.calls()


def test_every_method_is_served_or_refused() -> None:
    assert len(FORWARDS_V2) == 12
    assert {*ABOUT_ENGINES} >= FORWARDS_V2.keys() | REFUSED_BY_V2.keys()
    assert not FORWARDS_V2.keys() & REFUSED_BY_V2.keys()
    assert ASKED.keys() == FORWARDS_V2.keys()


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_is_forwarded_with_all_that_it_has(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str
) -> None:
    await prepare(spdk, v2_proxy)
    await v2_proxy.call(method, request(method))
    assert await spdk.tell(calls=True) == [[FORWARDS_V2[method].method, ASKED[method]]]


async def test_the_service_is_where_the_engine_is(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk_elsewhere)
    for address in ("127.0.0.2:10000", "tcp://127.0.0.2:10000", "http://127.0.0.2:1/v1"):
        await v2_proxy.call("MetricsGet", WHICH | {"address": address})
        assert await spdk_elsewhere.calls() == ["MetricsGet"]
    assert await spdk.calls() == []


async def test_the_service_may_have_an_ipv6_address(spdk: SpdkProcess, tmp_path: Any) -> None:
    port = spdk.address.rpartition(":")[2]
    with SpdkProcess(tmp_path, f"[::1]:{port}") as six:
        await make_volume(six)
        async with served_proxy(spdk=six.address) as running:
            told = await running.client.call("ReplicaList", WHICH | {"address": "tcp://[::1]:10000"})
            assert len(told.replica_list.replicas) == 2
            assert (await running.client.call("VolumeGet", WHICH)).volume.name == "v"


async def test_the_service_of_this_node_may_have_a_unix_socket(tmp_path: Any) -> None:
    with SpdkProcess(tmp_path, f"unix:{tmp_path}/spdk.sock") as local:
        async with served_proxy(spdk=local.address) as running:
            await running.client.call("SPDKBackingImageList", {})


async def test_a_snapshot_without_a_name_gets_one(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await make_volume(spdk)
    told = await v2_proxy.call("VolumeSnapshot", asking(snapshot_volume={}))
    assert str(uuid.UUID(told.snapshot.name)) == told.snapshot.name


async def test_answers_hold_what_the_service_tells(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await prepare(spdk, v2_proxy)
    await spdk.tell(put="Metrics", name=ENGINE, fields={"readThroughput": "1", "writeIOPS": "6"})
    metrics = (await v2_proxy.call("MetricsGet", WHICH)).metrics
    assert (metrics.readThroughput, metrics.writeIOPS) == (1, 6)
    await v2_proxy.call("SnapshotHash", request("SnapshotHash"))
    await spdk.tell(put="Hash", name=f"{THERE}/s0", fields={"error": "odd", "silently_corrupted": True})
    status = (await v2_proxy.call("SnapshotHashStatus", request("SnapshotHashStatus"))).status
    assert (status[THERE].state, status[THERE].error) == ("in_progress", "odd")
    assert status[THERE].silently_corrupted


def test_modes_of_a_clone_have_the_same_names() -> None:
    assert common_pb2.CloneMode.keys() == spdk_pb2.CloneMode.keys()


def test_numbers_of_a_linked_clone_source_differ() -> None:
    """So nobody may copy one by its bytes."""
    numbers = {
        kind.DESCRIPTOR.file.package: kind.DESCRIPTOR.fields_by_name["replica_name"].number
        for kind in (common_pb2.LinkedCloneSource, spdk_pb2.LinkedCloneSource)
    }
    assert numbers == {"imrpc": 1, "spdkrpc": 2}


@pytest.mark.parametrize("method", METHODS)
async def test_a_failure_is_internal_and_has_the_text_that_managers_look_for(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str
) -> None:
    await spdk.tell(fail=FORWARDS_V2[method].method, code="ABORTED", message="expansion is in progress")
    code, text = await v2_proxy.error(method, request(method))
    assert code == "INTERNAL"
    assert text.startswith("failed to ")
    assert text.endswith(": rpc error: code = Aborted desc = expansion is in progress")


@pytest.mark.parametrize("method", METHODS)
async def test_a_service_that_is_away_is_told(method: str) -> None:
    with nobody() as address:
        async with served_proxy(spdk=address) as running:
            code, text = await running.client.error(method, request(method))
    assert code == "INTERNAL"
    assert "rpc error: code = Unavailable desc = " in text


@pytest.mark.parametrize("method", sorted({*METHODS} - {"SnapshotClone"}))
async def test_a_service_that_hangs_is_given_up(spdk: SpdkProcess, method: str) -> None:
    await spdk.tell(hang="*")
    async with served_proxy(Timeouts(call=patience(0.2)), spdk=spdk.address) as running:
        code, text = await running.client.error(method, request(method))
    assert code == "INTERNAL"
    assert "rpc error: code = DeadlineExceeded desc = " in text


async def test_a_clone_may_take_longer_than_other_calls(spdk: SpdkProcess) -> None:
    await spdk.tell(hang="*")
    async with served_proxy(Timeouts(call=patience(0.2)), spdk=spdk.address) as running:
        asked = request("SnapshotClone")
        clone = running.client.call("SnapshotClone", asked)
        _, text = await running.client.error("SnapshotClone", asked | {"grpc_timeout_seconds": "1"})
        assert "DeadlineExceeded" in text
        async with asyncio.timeout(patience(20)):  # the service hears of a deadline when it has passed
            while await spdk.tell(pending=True) != ["EngineSnapshotClone"]:
                continue
        clone.cancel()


async def test_a_change_is_completed_when_its_caller_goes_away(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await spdk.tell(hang="EngineFrontendReplicaAdd")
    call = v2_proxy.call("ReplicaAdd", request("ReplicaAdd"))
    await spdk.called("EngineFrontendReplicaAdd")
    call.cancel()
    await v2_proxy.error("MetricsGet", WHICH)
    assert await spdk.tell(pending=True) == ["EngineFrontendReplicaAdd"]


async def test_a_read_ends_when_its_caller_goes_away(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await spdk.tell(hang="MetricsGet")
    call = v2_proxy.call("MetricsGet", WHICH)
    await spdk.called("MetricsGet")
    call.cancel()
    async with asyncio.timeout(WITHIN):
        while await spdk.tell(pending=True):
            pass


@pytest.mark.parametrize("method", sorted({*ABOUT_ENGINES} - REFUSED_BY_V2.keys()))
async def test_a_request_that_does_not_name_its_engine_is_refused(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str
) -> None:
    field = "engine_frontend_name" if method in BY_FRONTEND else "engine_name"
    code, text = await v2_proxy.error(method, request(method, **{field: ""}))
    assert (code, text) == (
        "INVALID_ARGUMENT",
        f"cannot tell which engine is meant: {field} is empty; set it",
    )
    assert await spdk.calls() == []


@pytest.mark.parametrize(
    ("method", "fields", "told"),
    [
        ("VolumeExpand", {}, "expand is missing"),
        ("VolumeExpand", {"expand": {"size": "-1"}}, "cannot expand to -1 bytes"),
        ("VolumeSnapshotMaxCountSet", {}, "count is missing"),
        ("VolumeSnapshot", {}, "snapshot_volume is missing"),
        ("VolumeSnapshot", {"snapshot_volume": {"name": "a/b"}}, "'a/b'"),
        ("ReplicaAdd", {"replica_address": "h:1"}, "replica_name is empty"),
        ("ReplicaAdd", {"replica_name": "r", "replica_address": "h"}, "address 'h'"),
        ("ReplicaRemove", {}, "replica_name is empty"),
        ("ReplicaRemove", {"replica_address": "h"}, "address 'h'"),
        ("SnapshotClone", {"clone_mode": 9}, "clone_mode 9"),
    ],
)
async def test_a_request_that_lacks_something_never_reaches_the_service(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str, fields: dict[str, Any], told: str
) -> None:
    code, text = await v2_proxy.error(method, asking(**fields))
    assert code == "INVALID_ARGUMENT"
    assert told in text
    assert await spdk.calls() == []


@pytest.mark.parametrize("method", sorted(REFUSED_BY_V2))
async def test_what_v2_does_not_have_is_refused(
    spdk: SpdkProcess, v2_proxy: ProxyClient, method: str
) -> None:
    code, text = await v2_proxy.error(method, request(method))
    assert code == "UNIMPLEMENTED"
    assert text.startswith(f"cannot serve {method}: ")
    assert await spdk.calls() == []


@pytest.mark.parametrize("method", ABOUT_ENGINES)
@pytest.mark.parametrize("data_engine", [9, -1])
async def test_there_is_no_third_data_engine(v2_proxy: ProxyClient, method: str, data_engine: int) -> None:
    code, _ = await v2_proxy.error(method, request(method, data_engine=data_engine))
    assert code == "UNIMPLEMENTED"


async def test_both_data_engines_are_served_at_once(
    spdk: SpdkProcess, v2_proxy: ProxyClient, engine: EngineProcess
) -> None:
    await make_volume(spdk)
    first, second = await asyncio.gather(
        v2_proxy.call("VolumeGet", of(engine)), v2_proxy.call("VolumeGet", WHICH)
    )
    assert (first.volume.name, second.volume.name) == ("vol1", "v")
    assert await spdk.calls() == ["EngineGet", "EngineFrontendGet"]
    assert [called for _, called, _, _ in await engine.calls()] == ["VolumeGet"]
    v1: dict[str, Any] = {"proxy_engine_request": {}}
    assert (await v2_proxy.error("ReplicaRebuildingQosSet", v1))[0] == "UNIMPLEMENTED"


async def test_the_version_is_that_of_the_controller_whatever_the_data_engine_is(
    v2_proxy: ProxyClient, engine: EngineProcess
) -> None:
    told = await v2_proxy.call("ServerVersionGet", of(engine, data_engine=1))
    assert told.version.cliAPIVersion == 12
