"""Nothing that comes in can hurt the others: each limit is held, named, and felt only by who goes over it."""

import asyncio
import contextlib
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from instance_manager.api.interceptors.arrivals import MAX_HELD
from instance_manager.api.listeners import Offset
from instance_manager.api.server import MAX_CALLS_PER_CONNECTION
from instance_manager.api.service import MAX_REQUEST_BYTES
from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper
from tests.support.flood import HALF, Flood, Floods
from tests.support.hammer import Hammer, hammer
from tests.support.patience import patience

Sized = Callable[[int, int], int]


async def refused(call: Any, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error.value.code() is code
    return error.value.details() or ""


async def test_a_request_that_is_too_long_is_refused_before_it_is_read(daemon: Daemon) -> None:
    async with daemon.client() as client:
        spec = pb.ProcessSpec(name="a", binary="/bin/true", args=["x" * MAX_REQUEST_BYTES])
        said = await refused(client.process_create(spec), grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert str(MAX_REQUEST_BYTES) in said
        assert await client.process_list() == {}


async def test_a_command_line_that_is_too_long_is_refused_with_the_bound(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for args, bound in ((["x"] * 1024, "1024"), (["x" * 131_071], "131071")):
            spec = pb.ProcessSpec(name="a", binary="/bin/true", args=args)
            assert bound in await refused(client.process_create(spec), grpc.StatusCode.INVALID_ARGUMENT)


async def test_the_longest_command_line_there_may_be_is_executed(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        longest = "x" * (131_071 - len("/bin/true"))
        await client.process_create(pb.ProcessSpec(name="a", binary="/bin/true", args=[longest]))
        await watch.state("a", "stopped")


async def test_processes_are_refused_over_the_bound_until_one_is_gone(tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, "--max-processes", "2") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        for name in ("a", "b"):
            await client.process_create(sleeper(name))
            await watch.state(name, "running")
        said = await refused(client.process_create(sleeper("c")), grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert "--max-processes is 2" in said
        said = await refused(
            client.process_replace(pb.ProcessSpec(name="a", binary="/bin/true")),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        assert "--max-processes is 2" in said
        assert sorted(await client.process_list()) == ["a", "b"]
        await client.process_delete("a")
        await watch.state("a", "deleted")
        await client.process_create(sleeper("c"))
        await watch.state("c", "running")


async def test_no_list_of_what_may_be_created_is_too_long_for_a_client(daemon: Daemon) -> None:
    async with daemon.client() as client:

        def big(number: int) -> pb.ProcessSpec:
            return pb.ProcessSpec(name=f"p{number}", binary="/no/such/program", args=["x" * 130_000])

        for number in range(32):
            await client.process_create(big(number))
        said = await refused(client.process_create(big(32)), grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert str(4 << 20) in said
        listed = pb.ProcessListResponse(processes=await client.process_list())
        assert listed.ByteSize() < 4 << 20


async def test_streams_are_refused_over_the_bound_until_one_has_ended(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--max-streams", "2") as daemon, daemon.client() as client:
        first = client.process_watch()
        async with Watch(client):
            await first.accepted()
            said = await refused(anext(aiter(client.process_watch())), grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert "--max-streams is 2" in said
            assert (await daemon.logged(lambda line: line["event"].startswith("call refused")))[
                "refused"
            ] == 1
            first.cancel()
            async with asyncio.timeout(patience(20)):
                # Health streams count as well, and have a first message.
                watch: Any = client._channel.unary_stream("/grpc.health.v1.Health/Watch")
                while True:
                    again = watch(b"")
                    try:
                        await again.read()
                    except grpc.aio.AioRpcError:
                        continue
                    break
            again.cancel()


async def test_a_client_may_ask_for_more_at_once_than_a_connection_takes(daemon: Daemon) -> None:
    """What is above the bound waits on the client's side; nothing is refused."""
    async with daemon.client() as client:
        await client.process_create(sleeper("a"))
        for _ in range(5):
            answers = await asyncio.gather(*(client.process_get("a") for _ in range(600)))
            assert {answer.spec.name for answer in answers} == {"a"}


async def test_a_connection_has_so_many_calls_under_way_and_no_more(daemon: Daemon) -> None:
    request = health_pb2.HealthCheckRequest().SerializeToString()
    async with daemon.client() as client, daemon.client() as another:
        watch: Any = client._channel.unary_stream("/grpc.health.v1.Health/Watch")
        watches = [watch(request) for _ in range(MAX_CALLS_PER_CONNECTION)]
        async with asyncio.timeout(patience(60)):
            await asyncio.gather(*(each.read() for each in watches))
            one_more = asyncio.create_task(watch(request).read())
            for _ in range(50):
                assert await another.health() == "SERVING"
            assert not one_more.done()
            watches[0].cancel()
            await one_more
        for each in watches:
            each.cancel()


async def one_after_the_other(client: Client, count: int, greedy: Hammer) -> list[int]:
    """Create and delete processes; return how many lists were answered during each delete."""
    waited = []
    for number in range(count):
        await client.process_create(sleeper(f"p{number}"))
        begin = greedy.answered
        await client.process_delete(f"p{number}")
        waited.append(greedy.answered - begin)
    return waited


@pytest.mark.timeout(300)
async def test_a_delete_does_not_wait_for_clients_that_list_without_pause(
    daemon: Daemon, sized: Sized
) -> None:
    """The lists that are under way all the time would take seconds if they all went first."""
    depth = sized(20, 40)
    async with hammer(daemon.url, 50, depth) as greedy, daemon.client() as client:
        waited = await one_after_the_other(client, sized(40, 300), greedy)
    # First in, first out, all the lists that were asked for before would go first.
    assert statistics.median(waited) < 50 * depth / 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("connections", [1, 17, pytest.param(200, marks=pytest.mark.slow)])
async def test_clients_that_send_half_of_each_request_hold_up_nobody_else(
    tmp_path: Path, connections: int
) -> None:
    """First in, first out, each call would wait until some thousand of theirs were given up."""
    calls = min(MAX_CALLS_PER_CONNECTION, MAX_HELD // connections)
    async with (
        running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
        asyncio.timeout(patience(200)),
    ):
        target = daemon.serving[-1]["addresses"][0]
        path = "/ProcessManagerService/VersionGet"
        greedy = [Flood(target, path, HALF, open_=calls) for _ in range(connections)]
        with Floods(greedy) as floods:
            while floods.made < connections * calls:  # noqa: ASYNC110 - a thread counts
                await asyncio.sleep(0.05)
            await taken(client)
            waited = []
            for number in range(10):
                for ask in (
                    client.health,
                    client.process_list,
                    lambda name=f"p{number}": client.process_create(sleeper(name)),
                    lambda name=f"p{number}": client.process_delete(name),
                ):
                    begin = floods.ended
                    await answered(ask)
                    waited.append(floods.ended - begin)
                await watch.state(f"p{number}", "deleted")
        # They give up by the clock, so more of them do while a call is answered on a machine that is busy.
        assert statistics.median(waited) < (40 if connections == 1 else min(patience(600), 1500)), waited


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("method", "before"), [("VolumeGet", 1.5), ("SnapshotBackup", 0.2)])
async def test_clients_that_send_half_of_each_request_to_the_proxy_hold_up_no_other_poll(
    tmp_path: Path, method: str, before: float
) -> None:
    """A small request of each goes before; large ones, of which few are received at once, do not."""
    connections = 100
    async with (
        running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon,
        asyncio.timeout(patience(200)),
    ):
        target = daemon.serving[-1]["addresses"][Offset.PROXY]
        path = f"/imrpc.ProxyEngineService/{method}"
        greedy = [Flood(target, path, HALF, open_=5) for _ in range(connections)]
        async with grpc.aio.insecure_channel(target) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            await check(b"")
            with Floods(greedy) as floods:
                while floods.made < connections * 5:  # noqa: ASYNC110 - a thread counts
                    await asyncio.sleep(0.05)
                waited = []
                for _ in range(5):
                    begin = floods.ended
                    await check(b"")
                    waited.append(floods.ended - begin)
    assert statistics.median(waited) < before * connections, waited


async def answered(ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask until it is answered: on a busy machine a whole request is late, too, and is refused then."""
    while True:
        try:
            await ask()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
        else:
            return


async def taken(client: Client) -> None:
    """Wait until gRPC has taken in calls that came all at once: meanwhile it refuses any."""
    for _ in range(20):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await client.process_list()
