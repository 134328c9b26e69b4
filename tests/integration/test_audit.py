"""Who has changed what is written down, whatever came of it."""

import asyncio
import contextlib
import functools
import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.api.audit_service import AuditService
from instance_manager.api.disk_service import DiskService
from instance_manager.api.event_service import EventService
from instance_manager.api.instance_service import InstanceService
from instance_manager.api.process_service import ProcessService
from instance_manager.api.proxy import ProxyService
from instance_manager.api.service import Service
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.pb.imrpc import instance_pb2
from instance_manager.pb.instance_manager.v1 import audit_pb2
from tests.support.daemon import BIN, Daemon, Watch, newcomer, sleeper, stub


def short(entry: audit_pb2.AuditEntry) -> tuple[str, str, str, str]:
    return entry.method.rpartition("/")[2], entry.name, entry.uuid, entry.code


async def test_every_change_is_told_with_its_subject_and_result(daemon: Daemon) -> None:
    begin = time.time()
    async with daemon.client() as client, Watch(client) as watch:
        uuid = (await client.process_create(sleeper("a"))).status.uuid
        await watch.state("a", "running")
        await client.process_list()
        await client.process_get("a")
        for call in (
            client.process_create(sleeper("a")),
            client.process_create(pb.ProcessSpec(name="../x", binary="/bin/true")),
            client.process_delete("a", "another"),
            client.process_replace(sleeper("b")),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        await client.process_delete("a")
        told = await client.audit()
    assert [short(entry) for entry in told.entries] == [
        ("ProcessCreate", "a", uuid, "OK"),
        ("ProcessCreate", "a", "", "ALREADY_EXISTS"),
        ("ProcessCreate", "../x", "", "INVALID_ARGUMENT"),
        ("ProcessDelete", "a", "another", "NOT_FOUND"),
        ("ProcessReplace", "b", "", "NOT_FOUND"),
        ("ProcessDelete", "a", uuid, "OK"),
    ]
    assert told.total == 6
    assert all(entry.caller for entry in told.entries)
    assert "already exists" in told.entries[1].detail
    assert begin - 1 < told.entries[0].time.ToNanoseconds() / 1e9 <= time.time()
    assert told.entries[0].method == "ProcessManagerService/ProcessCreate"


async def test_noise_and_a_call_that_was_given_up_are_told_too(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        delete: Any = client._channel.unary_unary("/ProcessManagerService/ProcessDelete")
        with pytest.raises(grpc.aio.AioRpcError):
            await delete(b"\xff\xff")
        old = await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        replacing = asyncio.create_task(client.process_replace(stub("a", "--ready-after", "1000")))
        await newcomer(client, old.status.uuid)
        replacing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await replacing
        await daemon.logged(lambda line: line.get("code") == "CANCELLED")
        told = [short(entry) for entry in (await client.audit()).entries]
    assert told[0] == ("ProcessDelete", "", "", "INVALID_ARGUMENT")
    assert told[-1] == ("ProcessReplace", "a", "", "CANCELLED")


async def test_each_change_is_a_line_in_the_daemons_log(daemon: Daemon) -> None:
    async with daemon.client() as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await client.process_delete("nobody")
    line = await daemon.logged(lambda line: line["event"] == "audit")
    assert (line["method"], line["name"], line["code"]) == (
        "ProcessManagerService/ProcessDelete",
        "nobody",
        "NOT_FOUND",
    )


async def test_no_log_level_hides_who_has_changed_what(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.set_log_level("panic")
        with pytest.raises(grpc.aio.AioRpcError):
            await client.process_delete("nobody")
    for method in ("imrpc.InstanceService/LogSetLevel", "ProcessManagerService/ProcessDelete"):
        await daemon.logged(functools.partial(is_audit_of, method))


def is_audit_of(method: str, line: dict[str, Any]) -> bool:
    return (line["event"], line.get("method")) == ("audit", method)


async def test_the_latest_changes_can_be_asked_for(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for name in ("a", "b", "c"):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.process_delete(name)
        (last,) = (await client.audit(limit=1)).entries
        assert last.name == "c"
        assert len((await client.audit(since_time=datetime.now(UTC) - timedelta(hours=1))).entries) == 3
        assert not (await client.audit(since_time=datetime.now(UTC) + timedelta(hours=1))).entries
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.audit(limit=-1)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_command_line_shows_who_has_changed_what(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for name in ("a", "b"):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.process_delete(name)
    text = await ask(daemon, "-o", "text")
    header, *lines = text.splitlines()
    assert header.split()[2:] == ["METHOD", "NAME", "UUID", "CALLER", "CODE", "SUBJECT", "DETAIL"]
    assert [line.split()[1:4] for line in lines] == [["ProcessDelete", name, "-"] for name in ("a", "b")]
    (line,) = (await ask(daemon, "--for", "a", "--tail", "1")).splitlines()
    assert json.loads(line)["code"] == "NOT_FOUND"
    assert f"uid {os.getuid()}" in json.loads(line)["caller"]


async def ask(daemon: Daemon, *options: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(str(BIN), "--url", daemon.url, "events", "--audit", *options), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_changes_of_instances_and_of_the_log_level_are_told_too(daemon: Daemon) -> None:
    spec = instance_pb2.InstanceSpec(name="vol-r-1", type="replica")
    spec.process_instance_spec.binary = "/bin/sleep"
    async with daemon.client() as client:
        uuid = (await client.instance_create(spec)).status.uuid
        await client.instance_delete("vol-r-1", uuid)
        await client.set_log_level("info")
        told = [short(entry) for entry in (await client.audit()).entries]
    assert told == [
        ("InstanceCreate", "vol-r-1", uuid, "OK"),
        ("InstanceDelete", "vol-r-1", uuid, "OK"),
        ("LogSetLevel", "", "", "OK"),
    ]


def without_parts(service: type[Service]) -> Service:
    """Return a service that can be asked only for its methods."""
    made = service.__new__(service)
    made.__dict__["_v2"] = None
    return made


def test_every_method_of_the_services_is_known_to_change_something_or_not_to() -> None:
    """A method that is new here has to be thought about: one that changes something is audited."""
    services: tuple[type[Service], ...]
    services = (ProcessService, InstanceService, EventService, AuditService, ProxyService, DiskService)
    looks = ("Get", "List", "Log", "Watch", "GetLevel", "GetFlags", "History", "Status")
    names = {method.name for service in services for method in service.descriptor.methods}
    offered = [method for service in services for method in without_parts(service).methods()]
    changes = {method.descriptor.name for method in offered if method.changes}
    assert {name for name in names if not name.endswith(looks)} | {"LogSetLevel", "LogSetFlags"} == changes
