"""Cgroups that fail while the daemon runs, and two daemons in one root: no instance ends by that."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from tests.support.cells import own_root
from tests.support.daemon import BIN, Daemon, Watch, sleeper
from tests.support.guard import reached
from tests.support.inmates import mount_of
from tests.support.node import Node, on_node
from tests.support.processes import lives

RESTARTS = 20


@pytest.fixture
def root() -> Iterator[Path]:
    """A cgroup of the test's own."""
    with own_root() as made:
        yield made


@pytest.fixture
async def apart(root: Path, tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon in a mount namespace of its own."""
    daemon = Daemon(tmp_path, "--containment", "cgroup", "--cgroup-root", str(root))
    daemon.prefix = ("unshare", "--mount", str(BIN))
    try:
        await daemon.start()
        yield daemon
    finally:
        left = await daemon.clean_up()
    assert left == []


def in_its_namespace(daemon: Daemon, *command: str) -> None:
    subprocess.run(["nsenter", "--target", str(daemon.pid), "--mount", *command], check=True)


def cells(root: Path) -> list[Path]:
    return [path for path in root.glob("*/*") if path.is_dir()]


async def running(client: Client, watch: Watch, name: str) -> str:
    """Create an instance, wait until it runs and return its UUID."""
    await client.process_create(sleeper(name))
    return (await watch.state(name, "running")).status.uuid


async def refused(client: Client, name: str) -> str:
    """Create an instance for which there is no cgroup; return its error."""
    async with Watch(client) as watch:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_create(sleeper(name))
        assert watch.seen == [] or {each.spec.name for each in watch.seen} == {name}
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return error.value.details() or ""


async def gone(client: Client, watch: Watch, *names: str) -> None:
    for name in names:
        await client.process_delete(name)
    for name in names:
        await watch.state(name, "deleted")


async def test_one_that_turns_read_only_refuses_new_instances_and_ends_none(
    apart: Daemon, root: Path
) -> None:
    mount = str(mount_of(root))
    async with apart.client() as client, Watch(client) as watch:
        uuids = [await running(client, watch, name) for name in ("a", "b")]
        in_its_namespace(apart, "mount", "-o", "remount,bind,ro", mount)
        assert "Read-only file system; mount it writable again" in await refused(client, "c")
        assert sorted(each.status.uuid for each in (await client.process_list()).values()) == sorted(uuids)
        assert dict((await client.status()).containment.failures) == {"Read-only file system": 1}
        assert "\ninstance_manager_containment_failures_total 1.0\n" in (await apart.http("/metrics"))[1]
        await gone(client, watch, "a")
        assert len(apart.descendants()) == 1
        in_its_namespace(apart, "mount", "-o", "remount,bind,rw", mount)
        await running(client, watch, "c")
        await gone(client, watch, "b", "c")


async def test_one_that_is_full_refuses_new_instances_until_there_is_room(apart: Daemon, root: Path) -> None:
    async with apart.client() as client, Watch(client) as watch:
        uuid = await running(client, watch, "a")
        (root / "cgroup.max.descendants").write_text("2")
        assert "raise cgroup.max.descendants" in await refused(client, "b")
        assert (await client.process_get("a")).status.uuid == uuid
        (root / "cgroup.max.descendants").write_text("max")
        await running(client, watch, "b")
        await gone(client, watch, "a", "b")


async def test_one_that_is_unmounted_goes_on_to_work(apart: Daemon, root: Path) -> None:
    async with apart.client() as client, Watch(client) as watch:
        await running(client, watch, "a")
        in_its_namespace(apart, "umount", "--lazy", str(mount_of(root)))
        await running(client, watch, "b")
        assert len(cells(root)) == 2
        await gone(client, watch, "a", "b")


async def test_two_daemons_in_one_root_never_touch_each_other_s(root: Path, tmp_path: Path) -> None:
    """One is killed and started again and again, the other one goes on to work."""
    options = ("--containment", "cgroup", "--cgroup-root", str(root))
    for name in ("dies", "lives"):
        (tmp_path / name).mkdir()
    async with on_node(tmp_path / "dies", *options) as dying, on_node(tmp_path / "lives", *options) as other:
        async with other.client() as client, Watch(client) as watch:
            kept = {name: await running(client, watch, name) for name in ("a", "b")}
            pids = sorted(other.daemon.descendants())
            expected: dict[str, str] = {}
            for turn in range(RESTARTS):
                expected |= await one_more(dying, f"d{turn % 5}", expected)
                await dying.kill()
                await dying.restart()
                await running(client, watch, f"passing-{turn}")
                await gone(client, watch, f"passing-{turn}")
            assert sorted(other.daemon.descendants()) == pids
            assert {n: p.status.uuid for n, p in (await client.process_list()).items()} == kept
            await gone(client, watch, "a", "b")
        async with dying.client() as client, Watch(client) as watch:
            assert {n: p.status.uuid for n, p in (await client.process_list()).items()} == expected
            assert len(dying.daemon.descendants()) == len(expected)
            await gone(client, watch, *expected)


async def test_a_process_of_nobody_that_shows_nothing_delays_no_delete(root: Path, tmp_path: Path) -> None:
    """A script has started something, and has then become the daemon, which inherits what that leaves."""
    told = tmp_path / "told"
    leave = f"env -i setsid sh -c 'echo $$ >> {told}; sleep 1000' >/dev/null 2>&1 &"
    daemon = Daemon(tmp_path, "--containment", "cgroup", "--cgroup-root", str(root))
    daemon.prefix = ("/bin/sh", "-c", f'({leave}) & wait; exec "$@"', "sh", str(BIN))
    await daemon.start()
    try:
        await reached(lambda: told.exists() and told.read_text().endswith("\n"))
        stranger = int(told.read_text())
        async with daemon.client() as client, Watch(client) as watch:
            await running(client, watch, "r")
            await gone(client, watch, "r")
        assert await daemon.stop() == 0
        assert lives(stranger)
        assert [line for line in daemon.lines if line["level"] == "warning"] == []
        os.killpg(stranger, signal.SIGKILL)
    finally:
        left = await daemon.clean_up()
    assert left == []


async def one_more(node: Node, name: str, known: dict[str, str]) -> dict[str, str]:
    """Create an instance, in the place of one of the same name."""
    async with node.client() as client, Watch(client) as watch:
        if name in known:
            await gone(client, watch, name)
        return {name: await running(client, watch, name)}
