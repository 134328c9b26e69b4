"""Both data engines in one daemon: v2 goes to an SPDK service, and v1 never feels how that is."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess
from tests.support.v2_requests import SPECS, create_request

WITHIN = patience(30.0)
REPLICA = pb.InstanceSpec(
    name="v-r-0",
    type="replica",
    data_engine=common_pb2.DATA_ENGINE_V2,
    spdk_instance_spec=pb.SpdkInstanceSpec(disk_name="disk", size=1 << 20),
)


@pytest.fixture
async def v2_daemon(tmp_path: Path, spdk: SpdkProcess) -> AsyncIterator[Daemon]:
    options = ("--spdk-enabled", "--spdk-service-address", spdk.address, "--stop-timeout", "2")
    async with running_daemon(tmp_path, *options) as daemon:
        yield daemon


@pytest.fixture
async def client(v2_daemon: Daemon) -> AsyncIterator[Client]:
    async with v2_daemon.client() as client:
        yield client


class Pings:
    """Pings of InstanceWatch, counted."""

    def __init__(self, client: Client) -> None:
        self.count = 0
        self._stream = client.instance_watch()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._stream.accepted()
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _collect(self) -> None:
        async for _ in self._stream:
            self.count += 1
            self._arrived.set()

    async def more(self, than: int) -> None:
        async with asyncio.timeout(WITHIN):
            while self.count <= than:
                self._arrived.clear()
                await self._arrived.wait()


async def life_of_a_process(client: Client, name: str) -> float:
    """Create a v1 process, see it run, list it and delete it; return how many seconds that took."""
    begin = time.monotonic()
    async with Watch(client) as watch:
        await client.process_create(sleeper(name))
        await watch.state(name, "running")
        assert name in await client.process_list()
        assert (await client.instance_get(name)).status.state == "running"
        await client.process_delete(name)
        await watch.state(name, "deleted")
    return time.monotonic() - begin


async def refused(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return error.value.code()


async def test_instances_of_both_data_engines_are_listed_together(client: Client) -> None:
    await client.process_create(sleeper("p-r-0"))
    made = await client.instance_create(REPLICA)
    listed = await client.instance_list()
    assert {name: each.spec.data_engine for name, each in listed.items()} == {
        "p-r-0": common_pb2.DATA_ENGINE_V1,
        "v-r-0": common_pb2.DATA_ENGINE_V2,
    }
    assert listed["v-r-0"] == made
    assert set(await client.process_list()) == {"p-r-0"}


async def test_of_two_with_one_name_the_v1_instance_is_listed(client: Client) -> None:
    await client.process_create(sleeper("v-r-0"))
    await client.instance_create(REPLICA)
    listed = await client.instance_list()
    assert [each.spec.data_engine for each in listed.values()] == [common_pb2.DATA_ENGINE_V1]


async def test_what_only_v2_has_reaches_the_service_over_the_wire(spdk: SpdkProcess, client: Client) -> None:
    for kind in ("engine", "engine-frontend"):
        await client.instance_create(create_request(kind).spec)
    engine, frontend = SPECS["engine"].name, SPECS["engine-frontend"].name

    async def state() -> str:
        return (await client.instance_get(engine, kind="engine", data_engine="v2")).status.state

    await client.instance_suspend(engine, kind="engine")
    assert await state() == "suspended"
    await client.instance_resume(engine, kind="engine")
    assert await state() == "running"
    await client.instance_switch_over(
        frontend, "10.0.0.7:1", kind="engine-frontend", engine_name="v-e-1", phase="connect"
    )
    status = (await client.instance_get(frontend, kind="engine-frontend", data_engine="v2")).status
    assert (status.active_path, status.engine_name) == ("10.0.0.7:1", "v-e-1")
    assert (await spdk.request("EngineFrontendSwitchOver"))["switchover_phase"] == "connect"
    await client.instance_delete_target(engine, kind="engine")
    status = (await client.instance_get(engine, kind="engine", data_engine="v2")).status
    assert (status.state, status.target_port_start) == ("running", 0)


async def test_a_stale_uuid_is_refused_over_the_wire(client: Client) -> None:
    old = (await client.instance_create(REPLICA)).status.uuid
    await client.instance_delete("v-r-0", old, kind="replica", data_engine="v2", cleanup=True)
    new = (await client.instance_create(REPLICA)).status.uuid
    for cleanup in (True, False):
        stale = client.instance_delete("v-r-0", old, kind="replica", data_engine="v2", cleanup=cleanup)
        assert await refused(stale) is grpc.StatusCode.NOT_FOUND
    assert (await client.instance_get("v-r-0", kind="replica", data_engine="v2")).status.uuid == new


async def test_changes_of_both_data_engines_are_pings(
    spdk: SpdkProcess, v2_daemon: Daemon, client: Client
) -> None:
    await client.instance_create(REPLICA)
    async with Pings(client) as pings:
        await v2_daemon.logged(lambda line: line["event"] == "watching v2 instances")
        # More changes than there are streams whose opening is a ping too.
        for number in range(8):
            before = pings.count
            await spdk.tell(set="Replica", name="v-r-0", fields={"state": f"state-{number}"})
            await pings.more(before)
            assert (await client.instance_list())["v-r-0"].status.state == f"state-{number}"
        before = pings.count
        await client.process_create(sleeper("p-r-0"))
        await pings.more(before)


async def test_the_service_goes_and_comes_back_while_v1_goes_on(spdk: SpdkProcess, client: Client) -> None:
    await client.instance_create(REPLICA)
    await client.process_create(sleeper("p-r-0"))
    async with Pings(client) as pings:
        await spdk.kill()
        await pings.more(0)
        begin = time.monotonic()
        get = client.instance_get("v-r-0", kind="replica", data_engine="v2")
        assert await refused(get) is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - begin < patience(5)
        assert await life_of_a_process(client, "p-r-1") < patience(10)
        away = await client.instance_list()
        assert set(away) == {"p-r-0", "v-r-0"}
        assert (away["v-r-0"].status.state, away["p-r-0"].status.error_msg) == ("running", "")
        assert "is unavailable" in away["v-r-0"].status.error_msg
        before = pings.count
        await spdk.start()
        await pings.more(before)
        async with asyncio.timeout(WITHIN):
            while (await client.instance_list())["v-r-0"].status.error_msg:
                pass


async def test_v1_goes_on_while_the_service_hangs(spdk: SpdkProcess, client: Client) -> None:
    await client.instance_create(REPLICA)
    spdk.freeze()
    hanging = [
        asyncio.ensure_future(client.instance_get("v-r-0", kind="replica", data_engine="v2"))
        for _ in range(20)
    ]
    for number in range(3):
        assert await life_of_a_process(client, f"p-r-{number}") < patience(10)
    assert "did not answer" in (await client.instance_list())["v-r-0"].status.error_msg
    codes = [await refused(call) for call in hanging]
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    spdk.thaw()
    assert (await client.instance_get("v-r-0", kind="replica", data_engine="v2")).status.state == "running"


async def test_a_service_that_hangs_does_not_hold_up_the_end_of_the_daemon(
    spdk: SpdkProcess, v2_daemon: Daemon, client: Client
) -> None:
    await spdk.tell(hang="*")
    creating = asyncio.ensure_future(client.instance_create(REPLICA))
    await spdk.called("ReplicaCreate")
    begin = time.monotonic()
    assert await v2_daemon.stop() == 0
    assert time.monotonic() - begin < patience(10)
    await refused(creating)


async def test_without_spdk_enabled_a_v2_request_tells_how_to_enable_it(daemon: Daemon) -> None:
    async with daemon.client() as client:
        with pytest.raises(grpc.aio.AioRpcError, match="--spdk-enabled") as error:
            await client.instance_create(REPLICA)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert await client.instance_list() == {}
