"""The lifecycle of real processes, driven over the wire."""

import grpc
import grpc.aio
import pytest

from tests.support.daemon import Daemon, Watch, sleeper, stub


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


async def test_a_stub_with_ports_runs_once_it_serves(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(stub("r", ports=2))
        assert created.status.port_end == created.status.port_start + 1
        await watch.state("r", "running")
