"""Instance managers as the search for orphans asks them: real ones, and one that knows processes only."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.orphans.events import InstanceChanged, InstanceEvent, InstancesListed
from instance_manager.orphans.instance_managers import GrpcInstanceManager
from instance_manager.orphans.interfaces import CannotDeleteError, CannotReadError
from instance_manager.orphans.model import ObservedInstance
from instance_manager.pb.imrpc.instance_pb2 import InstanceDeleteRequest, InstanceResponse
from tests.support.daemon import Daemon, Watch, sleeper
from tests.support.patience import patience
from tests.support.without_uuid import without_uuids

ANOTHER = "00000000-0000-4000-8000-000000000000"


async def created(client: Client, name: str) -> ObservedInstance:
    """Create a process and return it as it has to be seen."""
    async with Watch(client) as watch:
        uuid = (await client.process_create(sleeper(name))).status.uuid
        await watch.state(name, "running")
    kind = "engine" if "-e-" in name else "replica"
    return ObservedInstance(name, uuid, kind, "running")


async def exhausted(watched: AsyncGenerator[InstanceEvent, None]) -> None:
    async for _ in watched:
        pass


async def test_instances_are_listed_and_got_with_their_types_and_uuids(daemon: Daemon) -> None:
    async with daemon.client() as client:
        seen = [await created(client, name) for name in ("v1-e-0", "v1-r-a")]
        source = GrpcInstanceManager("im-1", lambda: client)
        assert source.name == "im-1"
        assert sorted(await source.list_live(), key=lambda each: each.name) == seen
        assert [await source.get_live(each) for each in seen] == seen
        assert await source.get_live(ObservedInstance("other", ANOTHER, "replica", "running")) is None


async def test_a_delete_hits_only_the_instance_that_has_the_uuid(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        seen = await created(client, "r1")
        source = GrpcInstanceManager("im-1", lambda: client)
        assert not await source.delete(ObservedInstance("r1", ANOTHER, "replica", "running"))
        assert await source.get_live(seen) == seen
        with pytest.raises(CannotDeleteError, match="it has no UUID"):
            await source.delete(ObservedInstance("r1", "", "replica", "running"))
        assert await source.get_live(seen) == seen
        assert await source.delete(seen)
        await watch.state("r1", "deleted")
        assert await source.get_live(seen) is None
        assert not await source.delete(seen)


async def test_a_watch_tells_all_instances_and_then_each_change(daemon: Daemon) -> None:
    async with daemon.client() as client, daemon.client() as watching:
        known = await created(client, "r1")
        async with (
            aclosing(GrpcInstanceManager("im-1", lambda: watching).watch()) as watched,
            asyncio.timeout(patience(40)),
        ):
            assert await anext(watched) == InstancesListed("im-1", [known])
            new = await created(client, "r2")
            await client.process_delete("r2", new.uuid)
            changes = []
            async for event in watched:
                if isinstance(event, InstanceChanged):
                    changes.append(event)
                    if event.instance is None:
                        break
        states = ["starting", "running", "stopping", "stopped"]
        assert changes == [
            *(InstanceChanged("im-1", "r2", replace(new, state=state)) for state in states),
            InstanceChanged("im-1", "r2", None),
        ]


async def test_the_end_of_a_replaced_instance_is_no_end_of_the_one_that_has_the_name(daemon: Daemon) -> None:
    async with daemon.client() as client, daemon.client() as watching:
        old = await created(client, "r1")
        async with (
            aclosing(GrpcInstanceManager("im-1", lambda: watching).watch()) as watched,
            asyncio.timeout(patience(40)),
        ):
            assert await anext(watched) == InstancesListed("im-1", [old])
            spec = sleeper("r1")
            spec.binary = "/bin/sh"
            spec.args[:] = ["-c", "exec sleep 1000"]
            new = (await client.process_replace(spec)).status.uuid
            seen, ending = None, False
            async for event in watched:
                if isinstance(event, InstanceChanged):
                    seen = event.instance
                    if ending:
                        break
                    ending = seen is not None and (seen.uuid, seen.state) == (old.uuid, "stopped")
            assert seen is not None
            assert (seen.uuid, seen.state) == (new, "running")


async def test_a_ping_leads_to_another_list_for_what_no_event_tells(daemon: Daemon) -> None:
    async with daemon.client() as client, daemon.client() as watching:
        async with (
            aclosing(GrpcInstanceManager("im-1", lambda: watching).watch()) as watched,
            asyncio.timeout(patience(40)),
        ):
            assert await anext(watched) == InstancesListed("im-1", [])
            await client.process_create(sleeper("r1"))
            listed = [event async for event in taken_until(watched, InstancesListed)][-1]
        assert isinstance(listed, InstancesListed)
        assert [each.name for each in listed.instances] == ["r1"]


async def taken_until(
    watched: AsyncGenerator[InstanceEvent, None], kind: type[InstanceEvent]
) -> AsyncGenerator[InstanceEvent, None]:
    async for event in watched:
        yield event
        if isinstance(event, kind):
            return


async def test_a_watch_ends_with_an_error_when_the_daemon_ends(daemon: Daemon) -> None:
    async with daemon.client() as client:
        async with (
            aclosing(GrpcInstanceManager("im-1", lambda: client).watch()) as watched,
            asyncio.timeout(patience(40)),
        ):
            await anext(watched)
            await daemon.stop()
            with pytest.raises(CannotReadError, match="im-1"):
                await exhausted(watched)
        with pytest.raises(CannotReadError, match="UNAVAILABLE"):
            await GrpcInstanceManager("im-1", lambda: client).list_live()


async def test_a_watch_that_follows_a_lost_one_connects_anew_and_cuts_nothing_off(daemon: Daemon) -> None:
    async with contextlib.AsyncExitStack() as stack:
        made: list[Client] = []

        def connect() -> Client:
            made.append(daemon.client())
            stack.push_async_callback(made[-1].close)
            return made[-1]

        source = GrpcInstanceManager("im-1", connect)
        async with aclosing(source.watch()) as watched, asyncio.timeout(patience(40)):
            await anext(watched)
            assert len(made) == 1
            await daemon.stop()
            with pytest.raises(CannotReadError):
                await exhausted(watched)
        with pytest.raises(CannotReadError):
            await anext(source.watch())
        assert len(made) == 2
        daemon.lines.clear()
        await daemon.start()
        async with aclosing(source.watch()) as watched, asyncio.timeout(patience(40)):
            assert await anext(watched) == InstancesListed("im-1", [])
        assert len(made) == 3
        assert await source.list_live() == []


async def test_nothing_is_read_where_nobody_answers(tmp_path: Path) -> None:
    async with Client(f"unix://{tmp_path}/nothing.sock") as client:
        source = GrpcInstanceManager("im-1", lambda: client)
        seen = ObservedInstance("r1", ANOTHER, "replica", "running")
        for read in (source.list_live(), source.get_live(seen), anext(source.watch())):
            with pytest.raises(
                CannotReadError, match=r"cannot read instance manager im-1 at unix:.*No such file"
            ):
                await read
        with pytest.raises(CannotDeleteError, match="cannot delete r1 on instance manager im-1"):
            await source.delete(seen)


async def test_an_instance_of_v2_is_not_mistaken_for_none_where_its_service_is_away(daemon: Daemon) -> None:
    async with daemon.client() as client:
        source = GrpcInstanceManager("im-1", lambda: client)
        with pytest.raises(CannotReadError):
            await source.get_live(ObservedInstance("r1", ANOTHER, "replica", "running", "v2"))


async def test_an_instance_manager_that_knows_processes_only_is_asked_for_those(
    daemon: Daemon, tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/old.sock"
    async with daemon.client() as client, without_uuids(url, daemon.url) as old, Client(url) as to_old:
        seen = await created(client, "r1")
        bare = ObservedInstance("r1", "", "replica", "running")
        source = GrpcInstanceManager("im-old", lambda: to_old)
        assert await source.list_live() == [bare]
        assert await source.get_live(seen) == bare
        assert await source.get_live(ObservedInstance("other", "", "replica", "running")) is None
        async with aclosing(source.watch()) as watched:
            first = await anext(watched)
            assert isinstance(first, InstancesListed)
            assert first.instances == [bare]
            await created(client, "r2")
            async with asyncio.timeout(patience(40)):
                listed = [event async for event in taken_until(watched, InstancesListed)][-1]
            assert isinstance(listed, InstancesListed)
            assert {each.name for each in listed.instances} == {"r1", "r2"}
            await client.process_delete("r2")
            async with asyncio.timeout(patience(40)):
                while listed.instances != [bare]:
                    listed = await anext(watched)
                    assert isinstance(listed, InstancesListed)
        with pytest.raises(CannotDeleteError, match="it has no UUID"):
            await source.delete(bare)
        assert old.deletes == []


class GoInstances:
    """InstanceService of an instance manager that ignores the UUID in the delete of a v2 instance."""

    def __init__(self) -> None:
        self.deletes: list[str] = []

    async def delete(self, request: InstanceDeleteRequest, _: object) -> InstanceResponse:
        self.deletes.append(request.name)
        return InstanceResponse()

    def handler(self) -> grpc.GenericRpcHandler:
        answered = grpc.unary_unary_rpc_method_handler(
            self.delete, InstanceDeleteRequest.FromString, InstanceResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler("imrpc.InstanceService", {"InstanceDelete": answered})


async def test_a_v2_instance_is_not_deleted_where_its_uuid_would_not_be_looked_at(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/go.sock"
    go, server = GoInstances(), grpc.aio.server()
    server.add_generic_rpc_handlers([go.handler()])
    server.add_insecure_port(url)
    await server.start()
    try:
        async with Client(url) as client:
            source = GrpcInstanceManager("im-1", lambda: client)
            with pytest.raises(CannotDeleteError, match="does not compare the UUIDs of v2 instances"):
                await source.delete(ObservedInstance("r1", ANOTHER, "replica", "running", "v2"))
            assert go.deletes == []
            assert await source.delete(ObservedInstance("r1", ANOTHER, "replica", "running"))
            assert go.deletes == ["r1"]
            # What is not known there is not taken for gone.
            with pytest.raises(CannotReadError, match="UNIMPLEMENTED"):
                await source.get_live(ObservedInstance("r1", ANOTHER, "replica", "running", "v2"))
    finally:
        await server.stop(None)
