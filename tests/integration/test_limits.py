"""When the machine has no room, a request fails and nobody else is harmed."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from tests.support.daemon import Daemon, Watch, port_span, running_daemon, sleeper, stub

PIDS = Path("/sys/fs/cgroup/pids")


async def create_until_refused(client: Client, most: int) -> tuple[list[str], grpc.aio.AioRpcError]:
    """Create processes until one is refused; return the names of those that were not, and the refusal."""
    names: list[str] = []
    for number in range(most):
        try:
            await client.process_create(sleeper(f"p{number}"))
        except grpc.aio.AioRpcError as error:
            return names, error
        names.append(f"p{number}")
    raise AssertionError(f"{most} processes were created and none was refused")


async def holds_its_ground(daemon: Daemon, client: Client, watch: Watch, most: int) -> None:
    """Fill the machine up, look that nobody was harmed, make room, and look that it goes on."""
    names, refusal = await create_until_refused(client, most)
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert names
    assert await client.health() == "SERVING"
    await watch.until(lambda seen: {c.spec.name for c in seen if c.status.state == "running"} >= set(names))
    listed = await client.process_list()
    assert {name: p.status.state for name, p in listed.items()} == dict.fromkeys(names, "running")
    for name in names[:5]:
        await client.process_delete(name)
        await watch.state(name, "deleted")
    await client.process_create(sleeper("again"))
    await watch.state("again", "running")
    await daemon.has_descendants(len(names) - 5 + 1)


async def test_without_descriptors_a_create_is_refused_and_nobody_is_harmed(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.prefix = ("/bin/sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *daemon.prefix)
    await daemon.start()
    try:
        async with daemon.client() as client, Watch(client) as watch:
            await daemon.logged(lambda line: "few open files" in line["event"] and line["limit"] == 256)
            await holds_its_ground(daemon, client, watch, 300)
    finally:
        assert await daemon.clean_up() == []


@pytest.fixture
def few_pids() -> Iterator[Path]:
    """A control group that holds few tasks."""
    group = PIDS / f"instance-manager-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text("60")
    except OSError as error:
        pytest.skip(f"needs a writable pids control group (version 1) at {PIDS}: {error}")
    yield group
    group.rmdir()


async def test_without_pids_a_create_is_refused_and_nobody_is_harmed(few_pids: Path, tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon, daemon.client() as client, Watch(client) as watch:
        (few_pids / "cgroup.procs").write_text(str(daemon.pid))
        await holds_its_ground(daemon, client, watch, 100)


async def test_without_ports_a_create_is_refused_until_a_range_is_free_again(tmp_path: Path) -> None:
    first = port_span()[0]
    async with (
        running_daemon(tmp_path, "--port-range", f"{first}-{first + 3}") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        for name in ("a", "b"):
            await client.process_create(stub(name, ports=2))
            await watch.state(name, "running")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_create(stub("c", ports=2))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--port-range" in (error.value.details() or "")
        await client.process_delete("a")
        await watch.state("a", "deleted")
        await client.process_create(stub("c", ports=2))
        assert (await watch.state("c", "running")).status.port_start == first


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_a_port_that_another_program_has_is_not_handed_out(tmp_path: Path, host: str) -> None:
    first = port_span()[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, first), family=family):
        async with (
            running_daemon(tmp_path, "--port-range", f"{first}-{first + 2}") as daemon,
            daemon.client() as client,
            Watch(client) as watch,
        ):
            assert (await client.process_create(stub("a", ports=2))).status.port_start == first + 1
            await watch.state("a", "running")
            with pytest.raises(grpc.aio.AioRpcError, match=f"others have {first}"):
                await client.process_create(stub("b"))


@pytest.mark.timeout(120)
async def test_a_hundred_stubs_with_ports_start_at_once_and_none_shares_a_port(tmp_path: Path) -> None:
    async with running_daemon(tmp_path) as daemon, daemon.client() as client, Watch(client) as watch:
        names = [f"r{n}" for n in range(100)]
        await asyncio.gather(*(client.process_create(stub(name, ports=3)) for name in names))
        await watch.until(
            lambda seen: {c.spec.name for c in seen if c.status.state == "running"} == set(names), 60
        )
        listed = (await client.process_list()).values()
        ports = [p for c in listed for p in range(c.status.port_start, c.status.port_end + 1)]
        assert len(set(ports)) == len(ports) == 300


async def test_a_process_killed_from_outside_is_an_error_with_the_name_of_the_signal(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        await daemon.has_descendants(1)
        (pid,) = daemon.descendants()
        os.kill(pid, signal.SIGKILL)
        assert (await watch.state("a", "error")).status.error_msg == "signal: SIGKILL"
