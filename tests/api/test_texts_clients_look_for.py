"""What a Longhorn manager looks for in errors and answers: texts, not codes. They are interface."""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.api.instance_wire import instance_to_wire
from instance_manager.client import Client
from instance_manager.core.conditions import volume_key
from instance_manager.pb.imrpc import instance_pb2
from tests.api.test_process_service import Served
from tests.support.daemon import Daemon, Watch, running_daemon, shell, sleeper, stub
from tests.support.patience import patience

GONE = "cannot find"
"""The instance is gone: nothing is left to be deleted."""
THERE = "already exists"
"""Another has created it meanwhile, which is as good."""
NO_REPLICA = "exit status 61"
"""How an engine ends that has no replica left; it lets the manager salvage the volume."""
STATES = {"starting", "running", "stopping", "stopped", "error"}
READ_ONLY = "FilesystemReadOnly"


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


def instance(name: str, program: str = "/bin/sleep", *args: str) -> instance_pb2.InstanceSpec:
    return instance_pb2.InstanceSpec(
        name=name,
        type="replica",
        process_instance_spec=instance_pb2.ProcessInstanceSpec(binary=program, args=args or ("1000",)),
    )


async def test_an_instance_that_is_gone_is_not_found_in_these_words(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for call in (
            client.process_get("e0"),
            client.process_delete("e0"),
            client.process_delete("e0", "some-uuid"),
            client.instance_get("e0"),
            client.instance_delete("e0"),
            client.instance_delete("e0", "some-uuid"),
        ):
            code, text = await refusal(call)
            assert code is grpc.StatusCode.NOT_FOUND
            assert GONE in text


async def test_an_instance_that_has_another_uuid_is_gone_too(daemon: Daemon) -> None:
    async with daemon.client() as client:
        uuid = (await client.process_create(sleeper("e1"))).status.uuid
        for call in (client.process_delete("e1", "earlier"), client.instance_delete("e1", "earlier")):
            code, text = await refusal(call)
            assert code is grpc.StatusCode.NOT_FOUND
            assert GONE in text
            assert "earlier" in text
            assert uuid in text
        assert (await client.process_get("e1")).status.uuid == uuid


async def test_replacing_what_is_gone_is_not_found(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for call in (client.process_replace(sleeper("e0")), client.instance_replace(instance("e0"))):
            code, text = await refusal(call)
            assert code is grpc.StatusCode.NOT_FOUND
            assert GONE in text


async def test_a_create_that_came_second_is_told_that_it_exists(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.process_create(sleeper("e1"))
        for call in (client.process_create(sleeper("e1")), client.instance_create(instance("e1"))):
            code, text = await refusal(call)
            assert code is grpc.StatusCode.ALREADY_EXISTS
            assert THERE in text
            assert GONE not in text


async def test_an_engine_without_replicas_is_told_by_its_exit_status(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("vol-e-0", "exit 61"))
        told = await watch.state("vol-e-0", "error")
        assert told.status.error_msg == NO_REPLICA
        for answer in (
            await client.process_get("vol-e-0"),
            (await client.process_list())["vol-e-0"],
            await client.instance_get("vol-e-0"),
            (await client.instance_list())["vol-e-0"],
        ):
            assert (answer.status.state, answer.status.error_msg) == ("error", NO_REPLICA)


async def test_ports_that_are_used_up_are_not_taken_for_an_instance_that_is_gone(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--port-range", "10000-10000") as daemon, daemon.client() as client:
        spec = instance("e2")
        spec.port_count = 2
        for call in (client.process_create(sleeper("e2", port_count=2)), client.instance_create(spec)):
            code, text = await refusal(call)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert GONE not in text
            assert THERE not in text
            assert "--port-range" in text


async def test_what_cannot_be_started_is_not_taken_for_gone_either(daemon: Daemon) -> None:
    async with daemon.client() as client:
        created = await client.instance_create(instance("e3", "/no/such/program"))
    assert created.status.state == "error"
    assert GONE not in created.status.error_msg


async def test_states_are_told_in_these_words(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("running"))
        await watch.state("running", "running")
        await client.process_create(shell("stopped", "exit 0"))
        await watch.state("stopped", "stopped")
        await client.process_create(shell("error", "exit 1"))
        await watch.state("error", "error")
        await client.process_create(
            shell("stopping", "trap 'echo asked' INT; echo up; while :; do sleep 0.1; done")
        )
        assert await anext(aiter(client.process_log("stopping", follow=True))) == "up"
        await client.process_delete("stopping")
        await client.process_create(sleeper("starting", port_count=1))
        told = {name: each.status.state for name, each in (await client.instance_list()).items()}
        assert told == {state: state for state in STATES}
        assert {c.status.state for c in watch.seen} <= STATES


async def test_a_read_only_file_system_is_a_condition_of_this_name(tmp_path: Path) -> None:
    served = Served(tmp_path, backlog=50)
    async with served.serving() as client:
        await client.process_create(sleeper("vol-e-0"))
        served.supervisor.observe_mounts({volume_key("vol")})
        for answer in (
            await client.process_get("vol-e-0"),
            (await client.process_list())["vol-e-0"],
            instance_to_wire(served.supervisor.get("vol-e-0")),
        ):
            assert dict(answer.status.conditions) == {READ_ONLY: True}


async def test_no_port_that_a_liveness_probe_asks_refuses_a_connection(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon, AsyncExitStack() as stack:
        addresses = daemon.serving[-1]["addresses"]
        assert len(addresses) == 4
        for address in addresses:
            host, _, port = address.rpartition(":")
            async with asyncio.timeout(patience(20)):
                _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            client = await stack.enter_async_context(Client(f"tcp://{address}"))
            assert await client.health() == "SERVING"
