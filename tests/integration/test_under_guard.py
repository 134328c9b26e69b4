"""The daemon under guard: what the guard saw is told, and what cannot be killed is told too."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos.storm import Guarded
from tests.support.daemon import Daemon, Watch, running_daemon, shell, sleeper, stub

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    daemon = Guarded(tmp_path, "--stop-timeout", "1")
    await daemon.start()
    try:
        yield daemon
    finally:
        left = await daemon.clean_up()
    assert left == []


async def test_a_process_that_ended_while_no_daemon_was_there_is_told_with_its_exit_status(
    guarded: Guarded, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    async with guarded.client() as client, Watch(client) as watch:
        await client.process_create(shell("brief", f"read line < {go}; exit 7"))
        await client.process_create(sleeper("killed"))
        await watch.until(lambda seen: sum(c.status.state == "running" for c in seen) == 2)
        pids = await guarded.named({"brief", "killed"})
    # The daemon is stopped, so it sees nothing of what happens until the next one takes over.
    daemon = guarded.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    served = guarded.times_served()
    os.kill(daemon, signal.SIGKILL)
    os.kill(pids["killed"], signal.SIGKILL)
    go.write_text("\n")
    await guarded.served_after(served)
    async with guarded.client() as client, Watch(client) as watch:
        for name, told in (("brief", "exit status 7"), ("killed", "signal: SIGKILL")):
            status = (await client.process_get(name)).status
            assert (status.state, status.error_msg) == ("error", told)
            await client.process_delete(name)
            await watch.state(name, "deleted")


async def test_the_exit_of_a_process_that_was_taken_over_is_told_at_once_and_exactly(
    guarded: Guarded,
) -> None:
    async with guarded.client() as client, Watch(client) as watch:
        await client.process_create(stub("r", "--stop-exit", "9"))
        await watch.state("r", "running")
    served = guarded.times_served()
    os.kill(guarded.daemon_pid(), signal.SIGKILL)
    await guarded.served_after(served)
    (pid,) = guarded.instances()
    async with guarded.client() as client, Watch(client) as watch:
        os.kill(pid, signal.SIGTERM)
        change = await watch.state("r", "error", within=10)
        assert change.status.error_msg == "exit status 9"


async def test_what_a_process_that_ended_while_no_daemon_was_there_has_left_behind_is_ended(
    guarded: Guarded,
) -> None:
    async with guarded.client() as client, Watch(client) as watch:
        await client.process_create(stub("r", "--helpers", "2"))
        await watch.state("r", "running")
        leader, *helpers = sorted(guarded.instances(), key=lambda pid: psutil.Process(pid).create_time())
    assert len(helpers) == 2
    daemon, served = guarded.daemon_pid(), guarded.times_served()
    os.kill(daemon, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    os.kill(leader, signal.SIGKILL)
    await guarded.served_after(served)
    async with guarded.client() as client, Watch(client) as watch:
        await client.process_delete("r")
        await watch.state("r", "deleted")
        assert guarded.instances() == []


async def test_what_an_instance_of_an_earlier_guard_has_left_behind_is_ended(tmp_path: Path) -> None:
    """The guard, the daemon and the instance were killed; what is left is a child of init by now."""
    earlier = Guarded(tmp_path, "--stop-timeout", "1")
    await earlier.start()
    following = Guarded(tmp_path, "--stop-timeout", "1")
    following.marker = earlier.marker
    try:
        async with earlier.client() as client, Watch(client) as watch:
            await client.process_create(stub("r", "--helpers", "2"))
            await watch.state("r", "running")
        leader, *helpers = sorted(earlier.instances(), key=lambda pid: psutil.Process(pid).create_time())
        assert len(helpers) == 2
        for pid in (earlier.pid, earlier.daemon_pid(), leader):
            os.kill(pid, signal.SIGKILL)
        await earlier.ended()
        await following.start()
        async with following.client() as client, Watch(client) as watch:
            await client.process_delete("r")
            await watch.state("r", "deleted")
            assert following.instances() == []
    finally:
        left = await following.clean_up()
    assert left == []


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A control group whose processes cannot be killed while it is frozen."""
    group = FREEZER / f"instance-manager-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "freezer.state").write_text("THAWED")
    except OSError as error:
        pytest.skip(f"needs a writable freezer control group (version 1) at {FREEZER}: {error}")
    yield group
    group.rmdir()


async def test_a_process_that_cannot_be_killed_stays_listed_with_the_reason_and_keeps_its_ports(
    freezer: Path, tmp_path: Path
) -> None:
    async with (
        running_daemon(tmp_path, "--stop-timeout", "0.5") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        created = await client.process_create(stub("stuck", ports=2))
        await watch.state("stuck", "running")
        (pid,) = daemon.descendants()
        (freezer / "cgroup.procs").write_text(str(pid))
        (freezer / "freezer.state").write_text("FROZEN")
        try:
            await client.process_delete("stuck")
            await watch.until(lambda seen: "cannot be killed" in seen[-1].status.error_msg)
            status = (await client.process_get("stuck")).status
            assert status.state == "stopping"
            assert f"pid {pid}" in status.error_msg
            other = await client.process_create(stub("other", ports=2))
            assert other.status.port_start > created.status.port_end
            await watch.state("other", "running")
        finally:
            (freezer / "freezer.state").write_text("THAWED")
        await watch.state("stuck", "deleted", within=15)


@pytest.mark.timeout(300)
async def test_sigterm_with_many_processes_leaves_none(tmp_path: Path, full: bool) -> None:
    count = 500 if full else 100
    async with running_daemon(tmp_path) as daemon, daemon.client() as client, Watch(client) as watch:
        for number in range(count):
            await client.process_create(sleeper(f"p{number}"))
        await watch.until(lambda seen: sum(c.status.state == "running" for c in seen) == count, 60)
        assert await daemon.stop(within=25) == 0
        assert daemon.descendants() == []


async def test_the_container_way_sigterm_to_the_guard_ends_everything_in_order(tmp_path: Path) -> None:
    daemon: Daemon = Guarded(tmp_path)
    await daemon.start()
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("r"))
        await watch.state("r", "running")
        assert await daemon.stop() == 0
        await watch.state("r", "deleted")
    assert await daemon.clean_up() == []
