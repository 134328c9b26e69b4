"""While an instance is starting, the daemon tells since when it waits and for what; never as an error."""

import time
from typing import Any

import pytest

from instance_manager.client import Client
from instance_manager.pb.instance_manager.v1 import events_pb2
from tests.support.cli import run
from tests.support.daemon import Daemon, Watch, sleeper, stub


async def snapshot(client: Client) -> dict[str, Any]:
    """Return every instance as EventService shows it now."""
    found = {}
    async for item in client.events(snapshot=True):
        if isinstance(item, events_pb2.Bookmark):
            break
        if isinstance(item, events_pb2.Instance):
            found[item.name] = item
    return found


async def until_it_waits(client: Client, words: str) -> Any:
    while words not in (found := (await snapshot(client))["r1"]).waiting_for:
        pass
    return found


async def test_a_snapshot_tells_since_when_and_for_what_an_instance_is_waited_for(daemon: Daemon) -> None:
    begin = time.time()
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(stub("r1", "--never-ready"))
        found = await until_it_waits(client, "nothing listens")
        assert found.state == "starting"
        assert found.waiting_for == (
            f"its health service to say SERVING: nothing listens on localhost:{created.status.port_start}"
        )
        assert begin - 1 < found.waiting_since.ToNanoseconds() / 1e9 <= time.time()
        assert found.error_msg == ""
        assert (await client.process_get("r1")).status.error_msg == ""
        assert (await client.instance_get("r1")).status.error_msg == ""
        # No event of its own: what watchers are told has not changed.
        assert [c.status.state for c in watch.seen] == ["starting"]


async def test_what_is_waited_for_changes_with_what_the_instance_does(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("r1", "--not-serving"))
        found = await until_it_waits(client, "NOT_SERVING")
        assert found.waiting_for.startswith(
            "its health service to say SERVING: the health check on localhost:"
        )
        await client.process_delete("r1")
        await watch.state("r1", "stopping")
        ending = (await snapshot(client)).get("r1", events_pb2.Instance())
        assert not ending.HasField("waiting_since")
        assert ending.waiting_for == ""


async def test_nothing_is_told_of_an_instance_that_runs(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("r1"))
        await client.process_create(sleeper("r2"))
        for name in ("r1", "r2"):
            await watch.state(name, "running")
            found = (await snapshot(client))[name]
            assert not found.HasField("waiting_since")
            assert found.waiting_for == ""


@pytest.mark.parametrize("group", ["process", "instance"])
async def test_tables_tell_it_in_a_column_that_is_there_only_when_needed(daemon: Daemon, group: str) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("r2"))
        await watch.state("r2", "running")
        assert "WAITING" not in (await run("--url", daemon.url, group, "list", "-o", "table")).out
        await client.process_create(stub("r1", "--never-ready"))
        await until_it_waits(client, "nothing listens")
        for form in ("table", "wide"):
            head, first, second = (await run("--url", daemon.url, group, "list", "-o", form)).out.splitlines()
            assert head.endswith("WAITING")
            assert " s for its health service to say SERVING: nothing listens on localhost:" in first
            assert second.endswith(" -")
        _, row = (await run("--url", daemon.url, group, "get", "r1", "-o", "table")).out.splitlines()
        assert "nothing listens on localhost:" in row
        # What programs read has the fields of the proto, and no others.
        told = (await run("--url", daemon.url, group, "get", "r1", "-o", "json")).out
        assert "nothing listens" not in told
