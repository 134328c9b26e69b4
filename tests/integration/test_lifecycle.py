"""The lifecycle of real processes, driven over the wire."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import BIN, Daemon, Watch, running_daemon, shell, sleeper, stub


async def test_a_process_is_created_listed_watched_and_deleted(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(sleeper("a"))
        assert created.status.state == "starting"
        assert created.status.uuid
        await watch.state("a", "running")
        assert (await client.process_list())["a"].status.uuid == created.status.uuid

        deleting = await client.process_delete("a", created.status.uuid)
        assert deleting.deleted
        await watch.state("a", "deleted")
        assert watch.states(created.status.uuid) == ["starting", "running", "stopping", "stopped", "deleted"]
        assert await client.process_list() == {}
        assert daemon.descendants() == []


async def test_a_delete_with_another_uuid_hits_nothing(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_delete("a", "00000000-0000-0000-0000-000000000000")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await client.process_get("a")).status.state == "running"


async def test_what_another_program_serves_on_a_port_makes_no_instance_running(tmp_path: Path) -> None:
    """It has begun to listen after the port was looked at, and before the instance."""
    async with (
        running_daemon(tmp_path, "--ready-timeout", "3", "--stop-timeout", "1") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        created = await client.process_create(shell("a", "exec sleep 1000", port_count=1))
        address = f"127.0.0.1:{created.status.port_start}"
        # A child of this test first, then an instance of the same daemon.
        foreign = await asyncio.create_subprocess_exec(
            *(str(BIN), "stub", "replica", "--listen", address), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert (
                "another program listens on localhost" in (await watch.state("a", "error")).status.error_msg
            )
        finally:
            foreign.terminate()
            await foreign.communicate()
        created = await client.process_create(shell("b", "exec sleep 1000", port_count=1))
        other = stub("c", "--listen", f"127.0.0.1:{created.status.port_start}", ports=0)
        await client.process_create(other)
        assert "another program listens on localhost" in (await watch.state("b", "error")).status.error_msg


@pytest.mark.parametrize("how", ["{}", "{} & wait", "setsid {} & wait", "setsid -f {}; exec sleep 1000"])
async def test_the_listener_may_be_any_process_that_an_instance_has_started(daemon: Daemon, how: str) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        script = how.format(f'{BIN} stub replica --listen "$0"')
        spec = pb.ProcessSpec(
            name="a", binary="/bin/sh", args=["-c", script], port_count=1, port_args=["127.0.0.1:"]
        )
        await client.process_create(spec)
        await watch.state("a", "running")


async def test_a_stub_with_ports_runs_once_it_serves(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(stub("r", ports=2))
        assert created.status.port_end == created.status.port_start + 1
        await watch.state("r", "running")
