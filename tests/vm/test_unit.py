"""The unit for a host: what becomes of instances when something ends or is started again."""

from pathlib import Path

import psutil

from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.vm.unit import GROUP, SETTINGS, STATE, Unit, members, run, systemctl

LEAVE = "INSTANCE_MANAGER_DAEMON_ON_STOP=leave\n"


def identity(instance: pb.ProcessResponse) -> tuple[str, str]:
    return instance.status.uuid, instance.status.state


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


async def test_it_starts_again_beside_instances_whose_groups_have_controllers(unit: Unit) -> None:
    SETTINGS.write_text(LEAVE)
    await unit.start()
    await unit.create("r1")
    instance = await leader(unit)
    instances = GROUP / "instances"
    cell = instances / "r1"
    cell.mkdir(parents=True)
    (cell / "cgroup.procs").write_text(str(instance.pid))
    (GROUP / "manager").mkdir()
    for process in (await unit.guard(), await unit.daemon()):
        (GROUP / "manager" / "cgroup.procs").write_text(str(process.pid))
    for group in (GROUP, instances):
        (group / "cgroup.subtree_control").write_text("+memory +pids +cpu +io")
    await systemctl("restart", unit.name)
    await unit.serves()
    assert members(cell) == {instance.pid}
    await unit.delete("r1")


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
