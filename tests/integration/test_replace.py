"""Replacing a process never loses the one that runs."""

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.pb.imrpc import instance_pb2
from instance_manager.pb.instance_manager.v1 import events_pb2
from tests.support.daemon import BIN, Daemon, Watch, event_of, newcomer, running_daemon, sleeper, stub
from tests.support.patience import patience


@pytest.fixture
def other_binary(tmp_path: Path) -> str:
    """The stub under another path: an upgraded engine."""
    other = tmp_path / "instance-manager-next"
    other.write_text(f'#!/bin/sh\nexec {BIN} "$@"\n')
    other.chmod(0o755)
    return str(other)


def upgraded(binary: str, *options: str) -> pb.ProcessSpec:
    spec = stub("e", *options)
    spec.binary = binary
    return spec


def by_name(watch: Watch) -> dict[str, pb.ProcessStatus]:
    """Return what a watcher believes that goes by the names alone."""
    known: dict[str, pb.ProcessStatus] = {}
    for change in watch.seen:
        known[change.spec.name] = change.status
        if change.deleted:
            del known[change.spec.name]
    return known


async def test_a_replacement_takes_over_the_name_and_the_old_process_ends_by_sighup(
    daemon: Daemon, other_binary: str
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        old = await client.process_create(stub("e", "--ignore", "SIGINT"))
        await watch.state("e", "running")
        new = await client.process_replace(upgraded(other_binary))
        assert new.status.uuid != old.status.uuid
        assert new.status.state == "running"
        assert new.status.port_start != old.status.port_start
        gone = await event_of(client, lambda event: event.deleted)
        assert await lives_so_far(client, watch) == {
            old.status.uuid: ["starting", "running"],
            new.status.uuid: ["running"],
        }
        assert by_name(watch)["e"] == (await client.process_get("e")).status
        assert [event.instance.state for event in await told_by_events(client, old)] == [
            *("starting", "running", "stopping", "stopped", "stopped")
        ]
        assert (gone.instance.uuid, gone.successor_uuid) == (old.status.uuid, new.status.uuid)
        assert gone.reason == "nothing is left of it; its name belongs to another"


async def told_by_events(client: Client, process: pb.ProcessResponse) -> list[events_pb2.Event]:
    events = (await client.event_history()).events
    return [event for event in events if event.instance.uuid == process.status.uuid]


async def lives_so_far(client: Client, watch: Watch) -> dict[str, list[str]]:
    """Return the states told until now: those before a process is told of that is created now."""
    marker = (await client.process_create(sleeper("last"))).status.uuid
    await watch.state("last", "starting")
    return {uuid: states for uuid, states in watch.lives().items() if uuid != marker}


async def test_the_same_binary_answers_the_process_that_runs(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        old = await client.process_create(stub("e"))
        await watch.state("e", "running")
        same = await client.process_replace(stub("e"))
        assert (same.status.uuid, same.status.state) == (old.status.uuid, "running")


async def test_a_replacement_that_never_gets_ready_is_an_error_and_leaves_the_old_process_alone(
    tmp_path: Path, other_binary: str
) -> None:
    async with (
        running_daemon(tmp_path, "--replace-timeout", "3") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        old = await client.process_create(stub("e"))
        await watch.state("e", "running")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_replace(upgraded(other_binary, "--never-ready"))
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "not ready within 3 s: nothing listens" in (error.value.details() or "")
        assert "the old process is untouched" in (error.value.details() or "")
        gone = await event_of(client, lambda event: event.deleted)
        now = await client.process_get("e")
        assert (now.status.uuid, now.status.state) == (old.status.uuid, "running")
        assert await lives_so_far(client, watch) == {old.status.uuid: ["starting", "running"]}
        assert by_name(watch)["e"] == now.status
        assert gone.successor_uuid == old.status.uuid


@pytest.mark.parametrize(
    "method", ["ProcessManagerService/ProcessReplace", "imrpc.InstanceService/InstanceReplace"]
)
async def test_a_caller_with_less_time_is_answered_before_its_deadline(
    daemon: Daemon, other_binary: str, method: str
) -> None:
    """Else it would take a replacement for failed that is carried out after all."""
    async with daemon.client() as client, Watch(client) as watch:
        old = await client.process_create(stub("e"))
        await watch.state("e", "running")
        spec = upgraded(other_binary, "--never-ready")
        request: Any = (
            pb.ProcessReplaceRequest(spec=spec, terminate_signal="SIGHUP")
            if method.endswith("ProcessReplace")
            else instance_pb2.InstanceReplaceRequest(
                spec=instance_pb2.InstanceSpec(
                    name=spec.name,
                    type="engine",
                    port_count=spec.port_count,
                    port_args=spec.port_args,
                    process_instance_spec=instance_pb2.ProcessInstanceSpec(
                        binary=spec.binary, args=spec.args
                    ),
                ),
                terminate_signal="SIGHUP",
            )
        )
        call: Any = client._channel.unary_unary(f"/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(request.SerializeToString(), timeout=patience(10))
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # In the daemon's words, and not in those of the client's gRPC.
        assert "nothing listens" in (error.value.details() or "")
        await event_of(client, lambda event: event.deleted)
        assert (await client.process_get("e")).status == old_running(watch, old.status.uuid)
        await daemon.has_descendants(1)


def old_running(watch: Watch, uuid: str) -> pb.ProcessStatus:
    return next(c.status for c in watch.seen if (c.status.uuid, c.status.state) == (uuid, "running"))


async def test_a_replacement_that_cannot_be_executed_leaves_the_old_process_alone(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        old = await client.process_create(stub("e"))
        await watch.state("e", "running")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_replace(upgraded("/no/such/binary"))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert os.strerror(2) in (error.value.details() or "")
        assert (await client.process_get("e")).status.uuid == old.status.uuid


async def test_a_delete_during_a_replace_is_not_undone(daemon: Daemon, other_binary: str) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        old = await client.process_create(stub("e"))
        await watch.state("e", "running")
        replacing = asyncio.create_task(client.process_replace(upgraded(other_binary, "--ready-after", "1")))
        new = (await newcomer(client, old.status.uuid)).instance
        await client.process_delete("e", old.status.uuid)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await replacing
        assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
        await event_of(client, lambda event: event.deleted and event.instance.uuid == new.uuid)
        states = ["starting", "running", "stopping", "stopped", "deleted"]
        assert await lives_so_far(client, watch) == {old.status.uuid: states}
        assert set(await client.process_list()) == {"last"}


async def test_another_signal_than_sighup_is_refused(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.process_create(stub("e"))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_replace(upgraded("/bin/true"), terminate_signal="SIGKILL")
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
