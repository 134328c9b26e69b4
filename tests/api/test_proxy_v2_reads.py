"""What the proxy finds out about v2 engines with more than one call, and how it tells it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog.testing
from google.protobuf import json_format

from instance_manager.adapters.engine import Timeouts
from tests.support.engine.served import ProxyClient, served_proxy
from tests.support.patience import patience
from tests.support.service_client import WITHIN
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.volume import (
    ENGINE,
    FRONTEND,
    SIZE,
    WHICH,
    asking,
    make_volume,
)


@pytest.fixture
async def impatient(spdk: SpdkProcess) -> AsyncIterator[ProxyClient]:
    async with served_proxy(Timeouts(call=patience(0.3)), spdk=spdk.address) as running:
        yield running.client


def as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


# --- the volume ---


async def test_a_volume_is_offered_as_its_frontend_tells(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await make_volume(spdk)
    told = as_json(await v2_proxy.call("VolumeGet", WHICH))
    assert told["volume"] == {
        "name": "v",
        "size": str(SIZE),
        "replicaCount": 2,
        "endpoint": "/dev/longhorn/v",
        "frontend": "spdk-tcp-blockdev",
        "isExpanding": True,
        "last_expansion_error": "too large",
        "last_expansion_failed_at": "yesterday",
        "snapshot_max_count": 250,
    }
    assert await spdk.tell(calls=True) == [
        ["EngineGet", {"name": ENGINE}],
        ["EngineFrontendGet", {"name": FRONTEND}],
    ]


async def test_a_volume_is_offered_as_its_engine_tells_if_the_frontend_does_not(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    first = (await v2_proxy.call("VolumeGet", WHICH | {"engine_frontend_name": ""})).volume
    assert await spdk.calls() == ["EngineGet"]
    await spdk.tell(fail="EngineFrontendGet", code="INTERNAL")
    second = (await v2_proxy.call("VolumeGet", WHICH)).volume
    assert first == second
    assert (first.endpoint, first.frontend, first.isExpanding) == ("/dev/engine", "spdk-tcp-nvmf", False)


async def test_a_frontend_that_hangs_is_not_waited_for_as_long_as_an_engine(spdk: SpdkProcess) -> None:
    assert Timeouts().optional <= 5
    await make_volume(spdk)
    await spdk.tell(hang="EngineFrontendGet")
    with structlog.testing.capture_logs() as logged:
        async with served_proxy(
            Timeouts(call=10 * WITHIN, optional=patience(0.2)), spdk=spdk.address
        ) as running:
            for _ in range(3):
                told = await running.client.call("VolumeGet", WHICH)
                assert told.volume.endpoint == "/dev/engine"
            await spdk.tell(work="EngineFrontendGet")
            for _ in range(2):
                told = await running.client.call("VolumeGet", WHICH)
                assert told.volume.endpoint == "/dev/longhorn/v"
    told = [(line["log_level"], line["frontend"]) for line in logged if "frontend of a vol" in line["event"]]
    assert told == [("warning", FRONTEND), ("debug", FRONTEND), ("debug", FRONTEND), ("info", FRONTEND)]


async def test_the_engine_of_a_volume_is_here_and_its_frontend_where_the_address_is(
    spdk: SpdkProcess, spdk_elsewhere: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    await make_volume(spdk_elsewhere)
    await v2_proxy.call("VolumeGet", WHICH | {"address": "127.0.0.2:10000"})
    assert await spdk.calls() == ["EngineGet"]
    assert await spdk_elsewhere.calls() == ["EngineFrontendGet"]


async def test_without_an_address_there_is_nobody_to_ask(v2_proxy: ProxyClient) -> None:
    code, text = await v2_proxy.error("ReplicaList", WHICH | {"address": ""})
    assert code == "INTERNAL"
    assert text.endswith("rpc error: code = Unavailable desc = missing address")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"spec_size": str(1 << 63)}, f"its size cannot be {1 << 63} bytes"),
        (
            {"replica_address_map": {f"r{each}": "127.0.0.1:20001" for each in range(65)}},
            "it tells of 65 replicas; 64 are the most",
        ),
        (
            {"snapshots": {f"s{each}": {} for each in range(1025)}},
            "it tells of 1025 snapshots; 1024 are the most",
        ),
        (
            {"snapshots": {"s": {"children": {f"s{each}": True for each in range(1025)}}}},
            "it tells of 1025 children; 1024 are the most",
        ),
    ],
)
async def test_an_engine_that_tells_what_cannot_be_is_not_believed(
    spdk: SpdkProcess, v2_proxy: ProxyClient, fields: dict[str, Any], why: str
) -> None:
    await spdk.tell(set="Engine", name=ENGINE, fields=fields)
    for method in ("VolumeGet", "ReplicaList", "SnapshotList"):
        code, text = await v2_proxy.error(method, WHICH)
        assert (code, text) == ("INTERNAL", f"failed to get engine {ENGINE}: {why}")


# --- snapshots ---


async def test_snapshots_are_listed_with_the_head(spdk: SpdkProcess, v2_proxy: ProxyClient) -> None:
    await make_volume(spdk)
    for name in ("s1", "s2"):
        await v2_proxy.call("VolumeSnapshot", asking(snapshot_volume={"name": name}))
    disks = as_json(await v2_proxy.call("SnapshotList", WHICH))["disks"]
    assert disks == {
        "s1": {
            "name": "s1",
            "children": {"s2": True},
            "user_created": True,
            "created": "2026-01-01T00:00:01Z",
            "size": "4096",
        },
        "s2": {
            "name": "s2",
            "parent": "s1",
            "children": {"volume-head": True},
            "user_created": True,
            "created": "2026-01-01T00:00:01Z",
            "size": "4096",
        },
        "volume-head": {"name": "volume-head", "parent": "s2", "created": "noon", "size": "7"},
    }


async def test_a_snapshot_was_created_when_its_volume_stood_still(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    fields = {"snapshots": {"s": {"snapshot_timestamp": "then", "creation_time": "later"}}}
    await spdk.tell(set="Engine", name=ENGINE, fields=fields)
    assert (await v2_proxy.call("SnapshotList", WHICH)).disks["s"].created == "then"


async def test_each_snapshot_is_removed_though_another_one_fails(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    for name in ("s1", "s2"):
        await v2_proxy.call("VolumeSnapshot", asking(snapshot_volume={"name": name}))
    code, text = await v2_proxy.error("SnapshotRemove", asking(names=["s1", "absent", "s2"]))
    assert code == "INTERNAL"
    assert text.endswith("rpc error: code = NotFound desc = cannot find snapshot absent")
    assert (await v2_proxy.call("SnapshotList", WHICH)).disks.keys() == {"volume-head"}
    await v2_proxy.call("SnapshotRemove", asking(names=[]))


async def test_a_purge_that_fails_is_told_and_has_no_status_of_its_own(
    spdk: SpdkProcess, v2_proxy: ProxyClient
) -> None:
    await make_volume(spdk)
    assert await v2_proxy.call("SnapshotPurgeStatus", WHICH) == (
        await v2_proxy.call("SnapshotPurgeStatus", WHICH | {"engine_name": "unknown"})
    )
    await spdk.tell(fail="EngineFrontendSnapshotPurge", code="UNKNOWN", message="broken")
    assert (await v2_proxy.error("SnapshotPurge", asking()))[0] == "INTERNAL"


# --- trouble ---

READS = {
    "VolumeGet": WHICH,
    "SnapshotList": WHICH,
    "SnapshotCloneStatus": WHICH,
    "ReplicaList": WHICH,
    "ReplicaRebuildingStatus": WHICH,
    "ReplicaRebuildingQosSet": asking(),
    "SnapshotBackupStatus": asking(backup_name="b"),
}


@pytest.mark.parametrize("method", READS)
async def test_an_engine_that_fails_hangs_or_is_unknown_is_an_error(
    spdk: SpdkProcess, impatient: ProxyClient, method: str
) -> None:
    code, text = await impatient.error(method, READS[method])
    assert code == "INTERNAL"
    assert text == (
        f"failed to get engine {ENGINE}: rpc error: code = NotFound desc = there is no Engine named {ENGINE}"
    )
    await spdk.tell(fail="EngineGet", code="INVALID_ARGUMENT", message="broken")
    _, text = await impatient.error(method, READS[method])
    assert text.endswith("rpc error: code = InvalidArgument desc = broken")
    await spdk.tell(hang="EngineGet")
    _, text = await impatient.error(method, READS[method])
    assert "code = DeadlineExceeded" in text
