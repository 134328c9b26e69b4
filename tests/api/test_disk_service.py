"""The disk service in front of an SPDK service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest
from google.protobuf import json_format

from instance_manager.adapters.spdk import SpdkConnection, Timeouts
from instance_manager.api.disk_service import FORWARDS, DiskService, DisksV2
from instance_manager.app.audit import AuditTrail
from instance_manager.app.engine import Completion
from instance_manager.pb.imrpc import disk_pb2 as pb
from instance_manager.platform.background import Background
from tests.support.engine.served import nobody
from tests.support.service_client import WITHIN, ServiceClient, served
from tests.support.spdk.process import SpdkProcess

SERVICE = pb.DESCRIPTOR.services_by_name["DiskService"]
REQUESTS: dict[str, dict[str, Any]] = {
    "DiskCreate": {
        "disk_type": "block",
        "disk_name": "d1",
        "disk_uuid": "u1",
        "disk_path": "/dev/sdx",
        "block_size": "4096",
        "disk_driver": "nvme",
    },
    "DiskDelete": {
        "disk_type": "block",
        "disk_name": "d1",
        "disk_uuid": "u1",
        "disk_path": "/dev/sdx",
        "disk_driver": "nvme",
    },
    "DiskGet": {
        "disk_type": "block",
        "disk_name": "d1",
        "disk_path": "/dev/sdx",
        "disk_driver": "nvme",
    },
    "DiskHealthGet": {
        "disk_type": "block",
        "disk_name": "d1",
        "disk_path": "/dev/sdx",
        "disk_driver": "nvme",
    },
    "DiskReplicaInstanceList": {"disk_type": "block", "disk_name": "d1", "disk_driver": "nvme"},
    "DiskReplicaInstanceDelete": {
        "disk_type": "block",
        "disk_name": "d1",
        "disk_uuid": "u1",
        "replcia_instance_name": "v-r-0",
        "disk_driver": "nvme",
    },
    "MetricsGet": {"disk_type": "block", "disk_name": "d1", "disk_path": "/dev/sdx", "disk_driver": "nvme"},
}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "DiskReplicaInstanceList": ("ReplicaList", {}),
    "DiskReplicaInstanceDelete": ("ReplicaDelete", {"name": "v-r-0", "cleanup_required": True}),
    "MetricsGet": ("MetricsGet", {"name": "d1"}),
}
"""What the SPDK service is asked; else the same."""
REQUIRED = {
    "DiskCreate": ("disk_name", "disk_path"),
    "DiskReplicaInstanceDelete": ("disk_name", "disk_uuid", "replcia_instance_name"),
    **dict.fromkeys(("DiskDelete", "DiskGet", "DiskHealthGet", "MetricsGet"), ("disk_name",)),
    "DiskReplicaInstanceList": ("disk_name",),
}
METHODS = sorted(REQUESTS)
CHANGES = {"DiskCreate", "DiskDelete", "DiskReplicaInstanceDelete"}


@dataclass
class Served:
    client: ServiceClient
    trail: AuditTrail


@asynccontextmanager
async def disk_service(address: str, within: float = WITHIN) -> AsyncIterator[Served]:
    connection = SpdkConnection(address, lambda: None, Background(), Timeouts(read=within, change=within))
    completion, trail = Completion(), AuditTrail(lambda: 1.0)
    service = DiskService(DisksV2(connection.service, connection.instances), completion)
    async with served(service, trail) as (channel, _):
        yield Served(ServiceClient(channel, SERVICE), trail)
    await completion.close()
    await connection.close()


@pytest.fixture
async def disks(spdk: SpdkProcess) -> AsyncIterator[ServiceClient]:
    async with disk_service(spdk.address) as running:
        yield running.client


async def prepare(spdk: SpdkProcess, method: str) -> None:
    """Let there be what a method is about."""
    if method != "DiskCreate":
        await spdk.tell(put="Disk", name="d1", fields={"name": "d1", "uuid": "u1", "state": "ready"})
    await spdk.tell(set="Replica", name="v-r-0", fields={"lvs_name": "d1"})
    await spdk.calls()


async def attempt(client: ServiceClient, method: str) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await client.call(method, REQUESTS[method])


def as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def test_every_method_is_either_local_or_asks_the_service() -> None:
    assert {*METHODS, "VersionGet"} == set(SERVICE.methods_by_name)
    assert {name for name, each in FORWARDS.items() if each.changes} == CHANGES & FORWARDS.keys()


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_is_forwarded_with_all_that_it_has(
    spdk: SpdkProcess, disks: ServiceClient, method: str
) -> None:
    await prepare(spdk, method)
    await disks.call(method, REQUESTS[method])
    same = {name: value for name, value in REQUESTS[method].items() if name != "disk_type"}
    assert await spdk.tell(calls=True) == [list(ASKED.get(method, (method, same)))]


async def test_a_disk_lives_through_the_service(spdk: SpdkProcess, disks: ServiceClient) -> None:
    made = await disks.call("DiskCreate", REQUESTS["DiskCreate"])
    told = as_json(made)
    assert told == {
        "id": "8:16",
        "uuid": "u1",
        "path": "/dev/sdx",
        "type": "block",
        "total_size": str(1 << 30),
        "free_size": str(1 << 29),
        "total_blocks": str(1 << 18),
        "free_blocks": str(1 << 17),
        "block_size": "4096",
        "cluster_size": str(1 << 20),
        "driver": "nvme",
        "name": "d1",
        "state": "ready",
    }
    await spdk.kill()
    await spdk.start()
    assert await disks.call("DiskGet", REQUESTS["DiskGet"]) == made
    health = as_json(await disks.call("DiskHealthGet", REQUESTS["DiskHealthGet"]))
    fields = [field.name for field in pb.DiskHealthGetResponse.DESCRIPTOR.fields]
    assert list(health) == fields
    assert len({str(value) for value in health.values()}) == len(fields)
    await spdk.tell(put="Metrics", name="d1", fields={"readThroughput": "1", "writeIOPS": str(2**64 - 1)})
    metrics = as_json(await disks.call("MetricsGet", REQUESTS["MetricsGet"]))
    assert metrics == {"metrics": {"readThroughput": "1", "writeIOPS": str(2**64 - 1)}}
    await disks.call("DiskDelete", REQUESTS["DiskDelete"])
    code, text = await disks.error("DiskGet", REQUESTS["DiskGet"])
    assert code == "NOT_FOUND"
    assert "cannot find Disk d1" in text


async def test_replicas_of_all_disks_are_listed_and_one_is_deleted_with_its_data(
    spdk: SpdkProcess, disks: ServiceClient
) -> None:
    for number in range(2):
        fields = {"lvs_name": f"d{number}", "lvs_uuid": f"u{number}", "uuid": f"r{number}", "spec_size": "7"}
        await spdk.tell(set="Replica", name=f"v-r-{number}", fields=fields | {"actual_size": "3"})
    told = as_json(await disks.call("DiskReplicaInstanceList", REQUESTS["DiskReplicaInstanceList"]))
    assert told["replica_instances"]["v-r-1"] == {
        "name": "v-r-1",
        "uuid": "r1",
        "disk_name": "d1",
        "disk_uuid": "u1",
        "spec_size": "7",
        "actual_size": "3",
    }
    assert set(told["replica_instances"]) == {"v-r-0", "v-r-1"}
    await disks.call("DiskReplicaInstanceDelete", REQUESTS["DiskReplicaInstanceDelete"])
    told = as_json(await disks.call("DiskReplicaInstanceList", REQUESTS["DiskReplicaInstanceList"]))
    assert set(told["replica_instances"]) == {"v-r-1"}


@pytest.mark.parametrize(
    ("method", "field"), [(name, field) for name, fields in REQUIRED.items() for field in fields]
)
async def test_a_request_that_lacks_something_never_reaches_the_service(
    spdk: SpdkProcess, disks: ServiceClient, method: str, field: str
) -> None:
    code, text = await disks.error(method, REQUESTS[method] | {field: ""})
    assert code == "INVALID_ARGUMENT"
    assert f"without {field}: set it" in text
    assert await spdk.calls() == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("disk_type", [0, 7, -1])
async def test_only_block_disks_are_known(
    spdk: SpdkProcess, disks: ServiceClient, method: str, disk_type: int
) -> None:
    code, text = await disks.error(method, REQUESTS[method] | {"disk_type": disk_type})
    assert code == "UNIMPLEMENTED"
    assert f"disk_type {disk_type}; set it to 1 (block)" in text
    assert await spdk.calls() == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("code", ["NOT_FOUND", "ALREADY_EXISTS", "INTERNAL", "FAILED_PRECONDITION"])
async def test_an_error_keeps_its_code_and_its_text(
    spdk: SpdkProcess, disks: ServiceClient, method: str, code: str
) -> None:
    asked, _ = ASKED.get(method, (method, {}))
    await spdk.tell(fail=asked, code=code, message="cannot find it: told so")
    told, text = await disks.error(method, REQUESTS[method])
    assert told == code
    assert text.startswith("cannot ")
    assert text.endswith(f"the SPDK service at {spdk.address} says: cannot find it: told so")


@pytest.mark.parametrize("method", METHODS)
async def test_a_service_that_hangs_is_given_up(spdk: SpdkProcess, method: str) -> None:
    await spdk.tell(hang="*")
    async with disk_service(spdk.address, within=0.2) as running:
        code, text = await running.client.error(method, REQUESTS[method])
    assert code == "DEADLINE_EXCEEDED"
    assert "did not answer within 0.2 s" in text


@pytest.mark.parametrize("method", METHODS)
async def test_a_service_that_is_away_is_unavailable(method: str) -> None:
    with nobody() as address:
        async with disk_service(address) as running:
            code, text = await running.client.error(method, REQUESTS[method])
    assert code == "UNAVAILABLE"
    assert "start it, or set --spdk-service-address" in text


@pytest.mark.parametrize("method", sorted(CHANGES))
async def test_a_change_is_completed_when_its_caller_goes_away(
    spdk: SpdkProcess, disks: ServiceClient, method: str
) -> None:
    asked, _ = ASKED.get(method, (method, {}))
    await spdk.tell(hang=asked)
    call = disks.call(method, REQUESTS[method])
    await spdk.called(asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await disks.call("VersionGet", {})
    assert await spdk.tell(pending=True) == [asked]


async def test_a_read_ends_when_its_caller_goes_away(spdk: SpdkProcess, disks: ServiceClient) -> None:
    await spdk.tell(hang="DiskGet")
    call = disks.call("DiskGet", REQUESTS["DiskGet"])
    await spdk.called("DiskGet")
    call.cancel()
    async with asyncio.timeout(WITHIN):
        while await spdk.tell(pending=True):
            pass


async def test_changes_are_audited_under_the_name_of_what_is_changed(spdk: SpdkProcess) -> None:
    async with disk_service(spdk.address) as running:
        for method in ("DiskCreate", "DiskGet", "DiskReplicaInstanceDelete", "DiskDelete"):
            await attempt(running.client, method)
        told = [
            (each.method.rpartition("/")[2], each.name, each.subject, each.code)
            for each in running.trail.entries()
        ]
    disk = "disk_name=d1 disk_uuid=u1"
    assert told == [
        ("DiskCreate", "d1", f"{disk} disk_path=/dev/sdx", "OK"),
        ("DiskReplicaInstanceDelete", "v-r-0", disk, "NOT_FOUND"),
        ("DiskDelete", "d1", f"{disk} disk_path=/dev/sdx", "OK"),
    ]


@pytest.mark.parametrize("method", METHODS)
async def test_without_v2_only_the_version_is_told(method: str) -> None:
    async with served(DiskService(None, Completion()), AuditTrail(lambda: 1.0)) as (channel, _):
        client = ServiceClient(channel, SERVICE)
        for request in ({}, REQUESTS[method]):
            code, text = await client.error(method, request)
            assert code == "UNIMPLEMENTED"
            assert text.endswith("start the daemon with --spdk-enabled")
        version = await client.call("VersionGet", {})
        assert version.instanceManagerDiskServiceAPIVersion == 1
        assert version.instanceManagerDiskServiceAPIMinVersion == 1
        assert version.version
