"""The unit for a host: what becomes of instances when something ends or is started again."""

from pathlib import Path

import psutil

from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Watch, shell
from tests.vm.unit import GROUP, SETTINGS, STATE, Unit, members, run, systemctl

LEAVE = "INSTANCE_MANAGER_DAEMON_ON_STOP=leave\n"
LIMITS = """\
INSTANCE_MANAGER_DAEMON_INSTANCE_MEMORY_MAX=64Mi
INSTANCE_MANAGER_DAEMON_INSTANCE_PIDS_MAX=20
INSTANCE_MANAGER_DAEMON_INSTANCE_CPU_WEIGHT=50
"""
EATER = "sleep 1000 & exec python3 -c 'eaten = []\nwhile True: eaten.append(bytes(1 << 20))'"
BOMB = "while :; do setsid sleep 1000 & done"
"""Starts as many as it may, each in a session of its own."""


def identity(instance: pb.ProcessResponse) -> tuple[str, str]:
    return instance.status.uuid, instance.status.state


def cell_of(instance: pb.ProcessResponse) -> Path:
    """Return the control group of an instance."""
    (owner,) = [path for path in GROUP.iterdir() if path.is_dir() and path.name != "manager"]
    return owner / instance.status.uuid


def mount_namespace(pid: int) -> Path:
    return Path("/proc", str(pid), "ns", "mnt").readlink()


def read(*path: str | Path) -> str:
    return Path(*path).read_text()


async def leader(unit: Unit) -> psutil.Process:
    """Return the process of the only instance."""
    (pid,) = members() - {(await unit.guard()).pid, (await unit.daemon()).pid}
    return psutil.Process(pid)


async def test_systemd_finds_nothing_wrong_with_it(installed: Path) -> None:
    assert await run("systemd-analyze", "verify", str(installed)) == ""


async def test_a_stop_ends_the_instances_and_is_no_failure(unit: Unit) -> None:
    await unit.start()
    await unit.create("r1")
    instance = await leader(unit)
    await systemctl("stop", unit.name)
    assert await unit.show("ActiveState") == "inactive"
    assert not instance.is_running()
    assert not GROUP.exists()


async def test_instances_see_the_mounts_and_have_the_limits_of_the_host(unit: Unit) -> None:
    await unit.start()
    await unit.create("r1")
    instance = await leader(unit)
    assert mount_namespace(instance.pid) == mount_namespace(1)
    assert instance.rlimit(psutil.RLIMIT_NOFILE) == (1048576, 1048576)
    assert read("/proc", str(instance.pid), "oom_score_adj") == "-900\n"
    assert read(GROUP, "pids.max") == "max\n"


async def test_a_daemon_that_is_killed_leaves_its_instances_to_the_next(unit: Unit) -> None:
    await unit.start()
    created = await unit.create("r1")
    instance, guard = await leader(unit), await unit.guard()
    (await unit.daemon()).kill()
    await unit.serves()
    assert identity(await unit.get("r1")) == identity(created)
    assert instance.is_running()
    assert await unit.guard() == guard


async def test_a_guard_that_is_killed_leaves_the_instances_to_the_next(unit: Unit) -> None:
    await unit.start()
    created = await unit.create("r1")
    instance, daemon = await leader(unit), await unit.daemon()
    (await unit.guard()).kill()
    await unit.serves()
    assert identity(await unit.get("r1")) == identity(created)
    assert instance.is_running()
    assert not daemon.is_running()
    assert members() == {instance.pid, (await unit.guard()).pid, (await unit.daemon()).pid}


async def test_with_on_stop_leave_instances_outlive_a_stop(unit: Unit) -> None:
    SETTINGS.write_text(LEAVE)
    await unit.start()
    created = await unit.create("r1")
    instance = await leader(unit)
    await systemctl("stop", unit.name)
    assert members() == {instance.pid}
    assert (STATE / "journal.db").exists()
    await unit.start()
    assert identity(await unit.get("r1")) == identity(created)
    await unit.delete("r1")


async def test_it_starts_again_beside_instances_whose_limits_are_kept(unit: Unit) -> None:
    SETTINGS.write_text(LEAVE + LIMITS)
    await unit.start()
    created = await unit.create("r1")
    instance = await leader(unit)
    cell = cell_of(created)
    expected = {"memory.max": str(64 << 20), "memory.oom.group": "1", "pids.max": "20", "cpu.weight": "50"}
    assert {file: read(cell, file).strip() for file in expected} == expected
    assert members(GROUP / "manager") == {(await unit.guard()).pid, (await unit.daemon()).pid}
    await systemctl("restart", unit.name)
    await unit.serves()
    assert members(cell) == {instance.pid}
    assert {file: read(cell, file).strip() for file in expected} == expected
    await unit.delete("r1")


async def test_an_instance_that_takes_too_much_memory_ends_alone_and_it_is_told_why(unit: Unit) -> None:
    SETTINGS.write_text(LIMITS)
    await unit.start()
    other = await unit.create("r1")
    async with unit.client() as client, Watch(client) as watch:
        await client.process_create(shell("r2", EATER))
        failed = await watch.state("r2", "error")
        reason = "signal: SIGKILL (out of memory: limit 64 MiB of this instance)"
        assert reason in failed.status.error_msg
        assert identity(await unit.get("r1")) == identity(other)
        (used,) = (await client.usage(["r1"])).instances
        assert used.uuid == other.status.uuid
        assert used.out_of_memory_kills == 0
        assert used.memory_bytes < 64 << 20
        assert await unit.show("ActiveState") == "active"


async def test_one_that_starts_too_many_processes_takes_no_others(unit: Unit) -> None:
    SETTINGS.write_text(LIMITS)
    await unit.start()
    async with unit.client() as client, Watch(client) as watch:
        await client.process_create(shell("r1", BOMB))
        created = await watch.state("r1", "running")
        await unit.full(cell_of(created))
        assert len(members(cell_of(created))) <= 20
        await unit.create("r2")
        await client.process_delete("r1")
        await watch.state("r1", "deleted")
    assert not cell_of(created).exists()


async def test_it_tells_which_containment_it_has(unit: Unit) -> None:
    await unit.start()
    async with unit.client() as client:
        told = (await client.status()).containment
    assert (told.kind, told.controllers_missing) == ("cgroup", "")
    assert list(told.controllers) == ["memory", "io", "cpu", "pids"]
    assert Path(told.folder).parent == GROUP


async def test_what_systemd_does_with_other_units_is_nothing_to_it(unit: Unit) -> None:
    await unit.start()
    await unit.create("r1")
    before = members()
    await systemctl("daemon-reload")
    await run("systemd-run", "--quiet", "--unit=other", "--property=CPUWeight=50", "sleep", "1000")
    assert await systemctl("is-active", "other") == "active"
    await systemctl("stop", "other")
    assert members() == before
    assert (await unit.get("r1")).status.state == "running"


async def test_wrong_usage_is_told_once(unit: Unit) -> None:
    SETTINGS.write_text("INSTANCE_MANAGER_DAEMON_STOP_TIMEOUT=soon\n")
    await systemctl("start", unit.name)
    await unit.logs("instance-manager.service: Failed with result 'exit-code'.")
    assert (await unit.show("ActiveState"), await unit.show("NRestarts")) == ("failed", "0")
