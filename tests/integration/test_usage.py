"""What the daemon tells of its containment, and of what instances use."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.pb.instance_manager.v1 import status_pb2 as pb
from tests.support.daemon import Daemon, Watch, running_daemon, shell, sleeper

BUSY = """
sh -c 'while :; do :; done' &
perl -e '$| = 1; $held = q(x) x 40_000_000; print qq(holds\\n); sleep 1000'
"""
"""A child that takes a CPU, and one that holds 40 MB."""
WRITER = "dd if=/dev/zero of=written bs=1M count=8 conv=fsync; echo has written; exec sleep 1000"
MB = 1_000_000


@pytest.fixture(params=["auto", "session"])
async def contained(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon with each containment."""
    async with running_daemon(tmp_path, "--containment", request.param, "--metrics-by-instance") as daemon:
        yield daemon


async def created(client: Client, watch: Watch, script: str, line: str) -> str:
    """Create an instance, wait until it has written a line, and return its UUID."""
    await client.process_create(shell("vol-r-1", script))
    running = await watch.state("vol-r-1", "running")
    async for each in client.process_log("vol-r-1", follow=True):
        if each == line:
            break
    return running.status.uuid


async def test_each_instance_is_told_what_its_processes_use_together(contained: Daemon) -> None:
    async with contained.client() as client, Watch(client) as watch:
        uuid = await created(client, watch, BUSY, "holds")
        await client.process_create(sleeper("vol-e-0"))
        await watch.state("vol-e-0", "running")
        idle, busy = (await client.usage()).instances
        assert [(each.name, each.type) for each in (idle, busy)] == [
            ("vol-e-0", "engine"),
            ("vol-r-1", "replica"),
        ]
        assert busy.uuid == uuid
        assert (idle.processes, idle.threads, busy.processes, busy.threads) == (1, 1, 3, 3)
        assert idle.memory_bytes < 10 * MB < 40 * MB < busy.memory_bytes
        assert 0 <= time.time() - busy.since.ToNanoseconds() / 1e9 < 1000
        now = (await client.usage(over=timedelta(seconds=0.2))).instances
        assert now[1].cpu_time.ToTimedelta() > busy.cpu_time.ToTimedelta()
        assert 0 <= now[0].cpu_share < now[1].cpu_share <= 1.5


async def test_what_is_written_to_a_disk_is_counted(contained: Daemon) -> None:
    async with contained.client() as client, Watch(client) as watch:
        await created(client, watch, f"cd {contained.folder}; {WRITER}", "has written")
        (used,) = (await client.usage(["vol-r-1"])).instances
        # Of dd, which has ended, only the kernel knows, where its controller is enabled.
        assert used.HasField("written_bytes")
        assert not used.HasField("out_of_memory_kills") or used.out_of_memory_kills == 0


async def test_only_those_that_are_asked_for_are_told_of(contained: Daemon) -> None:
    async with contained.client() as client, Watch(client) as watch:
        for name in ("a", "b", "c"):
            await client.process_create(sleeper(name))
            await watch.state(name, "running")
        assert [each.name for each in (await client.usage(["c", "a", "no"])).instances] == ["a", "c"]
        await client.process_delete("a")
        await watch.state("a", "deleted")
        assert [each.name for each in (await client.usage()).instances] == ["b", "c"]


async def test_metrics_tell_the_same(contained: Daemon) -> None:
    async with contained.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("vol-r-1"))
        await watch.state("vol-r-1", "running")
        _, body = await contained.http("/metrics")
    family = 'instance_manager_instance_{}{{name="vol-r-1",type="replica"}} '
    assert f"{family.format('processes')}1.0\n" in body
    assert f"{family.format('threads')}1.0\n" in body
    used = float(body.partition(family.format("memory_bytes"))[2].partition("\n")[0])
    assert 0 < used < 10 * MB


async def test_metrics_tell_nothing_by_instance_unless_it_is_wanted(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("vol-r-1"))
        await watch.state("vol-r-1", "running")
    assert "vol-r-1" not in (await daemon.http("/metrics"))[1]


@pytest.mark.parametrize("seconds", [-1, 10.5])
async def test_a_look_takes_at_most_ten_seconds(daemon: Daemon, seconds: float) -> None:
    async with daemon.client() as client:
        with pytest.raises(grpc.aio.AioRpcError, match="to 10") as refused:
            await client.usage(over=timedelta(seconds=seconds))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_which_containment_is_used_is_told_with_the_reason(contained: Daemon) -> None:
    logged = await contained.logged(lambda line: line["event"] == "containment")
    async with contained.client() as client:
        told = (await client.status()).containment
    assert (told.kind, told.reason, told.folder) == (logged["kind"], logged["why"], logged["folder"])
    info = f'instance_manager_containment_info{{controllers="{",".join(told.controllers)}"'
    assert info in (await contained.http("/metrics"))[1]


async def test_limits_that_cannot_be_had_are_told_everywhere(tmp_path: Path) -> None:
    options = ("--containment", "session", "--instance-memory-max", "64Mi", "--instance-pids-max", "50")
    async with running_daemon(tmp_path, *options) as daemon:
        async with daemon.client() as client:
            told = (await client.status()).containment
        why = "limits need cgroups: see --containment"
        assert told.limits == pb.Limits(memory_max=64 << 20, pids_max=50)
        assert dict(told.limits_refused) == {"memory.max": why, "pids.max": why}
        logged = await daemon.logged(lambda line: line["event"] == "instances go without limits")
        assert logged["refused"] == dict(told.limits_refused)
        assert "\ninstance_manager_limits_refused 2.0\n" in (await daemon.http("/metrics"))[1]
