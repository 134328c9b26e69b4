"""InstanceService as the Longhorn manager uses it: the life of a v1 volume."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.daemon import BIN, SLEEP, Daemon, Watch, running_daemon, sleeper, unique
from tests.support.patience import patience

REPLICAS = ("pvc-1-r-aaaa", "pvc-1-r-bbbb")
ENGINE = "pvc-1-e-0"


class Controller:
    """Watches and lists as a controller does: a ping, then a list."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.instances: dict[str, pb.InstanceResponse] = {}
        self._watch = client.instance_watch()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._watch.accepted()
        await self._list()
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await self._task

    async def _follow(self) -> None:
        async for _ in self._watch:
            await self._list()

    async def _list(self) -> None:
        listed = await self.client.instance_list()
        async with self._changed:
            self.instances = listed
            self._changed.notify_all()

    async def until(self, condition: Callable[[dict[str, pb.InstanceResponse]], bool]) -> None:
        """Wait until what is listed meets a condition."""
        async with asyncio.timeout(patience(20)), self._changed:
            await self._changed.wait_for(lambda: condition(self.instances))

    async def running(self, *names: str) -> dict[str, str]:
        """Wait until exactly these run and return their UUIDs."""
        await self.until(
            lambda listed: (
                set(listed) == set(names) and all(i.status.state == "running" for i in listed.values())
            )
        )
        return {name: instance.status.uuid for name, instance in self.instances.items()}


def instance(
    name: str, kind: str, ports: int, binary: str = str(BIN), *, volume: str = "pvc-1"
) -> pb.InstanceSpec:
    """Return the spec of a stub instance, in the form in which the Longhorn manager sends it."""
    return pb.InstanceSpec(
        name=name,
        type=kind,
        volume_name=volume,
        port_count=ports,
        port_args=["--listen,127.0.0.1:"],
        data_engine=common_pb2.DATA_ENGINE_V1,
        process_instance_spec=pb.ProcessInstanceSpec(binary=binary, args=["stub", kind]),
    )


async def attach(controller: Controller) -> dict[str, str]:
    """Create two replicas and then the engine, as they run."""
    for name in REPLICAS:
        answer = await controller.client.instance_create(instance(name, "replica", 10))
        assert answer.status.state == "starting"
    await controller.running(*REPLICAS)
    await controller.client.instance_create(instance(ENGINE, "engine", 1))
    return await controller.running(*REPLICAS, ENGINE)


async def detach(controller: Controller) -> None:
    """Delete the engine and then the replicas, each with its UUID."""
    for name in (ENGINE, *REPLICAS):
        answer = await controller.client.instance_delete(name, controller.instances[name].status.uuid)
        assert answer.deleted
        await controller.until(lambda listed, name=name: name not in listed)  # type: ignore[misc]


@pytest.fixture
async def controller(daemon: Daemon) -> AsyncIterator[Controller]:
    async with daemon.client() as client, Controller(client) as watching:
        yield watching


async def test_the_life_of_a_volume(controller: Controller, tmp_path: Path) -> None:
    """Attached, upgraded live, detached and attached again; a stale UUID never hits."""
    client = controller.client
    first = await attach(controller)
    listed = controller.instances
    assert {name: listed[name].spec.type for name in listed} == {
        **dict.fromkeys(REPLICAS, "replica"),
        ENGINE: "engine",
    }
    assert {each.spec.volume_name for each in listed.values()} == {"pvc-1"}
    for name in REPLICAS:
        status = listed[name].status
        assert status.port_end - status.port_start == 9
        assert (status.target_port_start, status.target_port_end) == (0, 0)
    engine = listed[ENGINE].status
    assert engine.port_start == engine.port_end == engine.target_port_start == engine.target_port_end
    assert engine.conditions == {"FilesystemReadOnly": False}
    ports = [port for i in listed.values() for port in range(i.status.port_start, i.status.port_end + 1)]
    assert len(ports) == 21
    assert unique(ports)

    upgraded = tmp_path / "engine-v2"
    upgraded.write_text(f'#!/bin/sh\nexec {BIN} "$@"\n')
    upgraded.chmod(0o755)
    async with Watch(client) as processes:
        answer = await client.instance_replace(instance(ENGINE, "engine", 1, str(upgraded)))
        assert answer.status.uuid != first[ENGINE]
        assert answer.status.state == "running"
        assert (await processes.state(ENGINE, "running")).status.uuid == answer.status.uuid
    await controller.until(lambda listed: listed[ENGINE].status.uuid == answer.status.uuid)

    with pytest.raises(grpc.aio.AioRpcError) as stale:
        await client.instance_delete(ENGINE, first[ENGINE])
    assert stale.value.code() is grpc.StatusCode.NOT_FOUND
    assert (await client.instance_get(ENGINE)).status.state == "running"

    await detach(controller)
    second = await attach(controller)
    assert not set(second.values()) & {*first.values(), answer.status.uuid}
    await detach(controller)


async def test_processes_and_instances_are_the_same_things(controller: Controller) -> None:
    client = controller.client
    await client.process_create(sleeper("vol-e-1"))
    await client.process_create(sleeper("vol-r-1"))
    uuids = await controller.running("vol-e-1", "vol-r-1")
    types = {name: each.spec.type for name, each in controller.instances.items()}
    assert types == {"vol-e-1": "engine", "vol-r-1": "replica"}, "the name tells"
    listed = await client.process_list()
    assert {name: each.status.uuid for name, each in listed.items()} == uuids


async def test_the_type_an_instance_was_created_with_counts_more_than_its_name(
    controller: Controller,
) -> None:
    spec = instance("vol-e-1", "replica", 0)
    spec.process_instance_spec.CopyFrom(pb.ProcessInstanceSpec(binary=SLEEP, args=["1000"]))
    del spec.port_args[:]
    answer = await controller.client.instance_create(spec)
    assert answer.spec.type == "replica"
    await controller.running("vol-e-1")
    assert controller.instances["vol-e-1"].spec.type == "replica"


async def test_older_clients_know_only_the_backend_store_driver(controller: Controller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await controller.client.instance_create(
            pb.InstanceSpec(name="x", type="replica", backend_store_driver=common_pb2.v2)
        )
    assert error.value.code() is not grpc.StatusCode.OK
    assert "v2" in (error.value.details() or "")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (pb.InstanceSpec(), "process_instance_spec"),
        (pb.InstanceSpec(name="a", type="replica"), "process_instance_spec"),
        (instance("a", "shard", 1), "engine and replica only"),
        (instance("a", "gate", 1), "'gate'"),
        (instance("../a", "replica", 1), "name"),
        (pb.InstanceSpec(name="a", data_engine=7), "data_engine"),  # type: ignore[arg-type]
        (instance("a", "replica", 1, volume="v" * 252), "volume_name of 252 characters"),
    ],
)
async def test_what_can_never_be_started_is_refused_with_the_reason(
    controller: Controller, spec: pb.InstanceSpec, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await controller.client.instance_create(spec)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in (error.value.details() or "")


async def test_a_v1_volume_has_no_shards(controller: Controller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await controller.client.instance_create(instance("a", "replica", 1), sharded=True)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_only_v2_can_do_is_unimplemented_in_v1(controller: Controller) -> None:
    client = controller.client
    for call in (
        client.instance_suspend("a", kind="engine", data_engine="v1"),
        client.instance_resume("a", kind="engine", data_engine="v1"),
        client.instance_switch_over("a", "h:1", kind="engine-frontend", data_engine="v1"),
        client.instance_delete_target("a", kind="engine", data_engine="v1"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_log_level_is_changed_and_told_while_the_daemon_runs(daemon: Daemon) -> None:
    async with daemon.client() as client:
        assert await client.log_level() == "info"
        await client.set_log_level("ERROR")
        assert await client.log_level() == "error"
        await client.process_create(sleeper("unheard"))
        await client.set_log_level("debug")
        await client.process_create(sleeper("heard"))
        await daemon.logged(
            lambda line: (
                (line["event"], line.get("method")) == ("call", "/ProcessManagerService/ProcessCreate")
            )
        )
        await daemon.logged(lambda line: line.get("name") == "heard")
        told = [line["event"] for line in daemon.lines if line.get("name") == "unheard"]
        assert "process starting" not in told
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.set_log_level("loud")
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_areas_log_in_detail_whatever_the_level(daemon: Daemon) -> None:
    async with daemon.client() as client:
        assert await client.log_flags() == ""
        await client.set_log_level("error")
        await client.set_log_flags("supervisor")
        assert await client.log_flags() == "supervisor"
        await client.process_create(sleeper("heard"))
        await daemon.logged(lambda line: line.get("name") == "heard")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.set_log_flags("supervisor,nvme")
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "nvme" in (error.value.details() or "")


async def test_both_services_are_on_both_ports(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        addresses = daemon.serving[-1]["addresses"]
        for address in (addresses[0], addresses[3]):
            async with Client(f"tcp://{address}") as client:
                assert await client.instance_list() == {}
                assert await client.process_list() == {}
                assert await client.health("imrpc.InstanceService") == "SERVING"
                assert await client.health("instance_manager.v1.EventService") == "SERVING"
