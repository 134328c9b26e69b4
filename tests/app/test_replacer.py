"""Replacing a process: the swap, and every way in which it does not come to one."""

import asyncio
from dataclasses import replace

import pytest

from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.core.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from instance_manager.core.process import ExitStatus, Process, State
from tests.support.world import READY_TIMEOUT, REPLACE_TIMEOUT, World, spec

NEW = "/bin/new"
NEW_UUID = "uuid-1"


@pytest.fixture
async def old(world: World) -> Process:
    """The process to be replaced, running on port 10000."""
    return await world.running("r", ports=1)


async def begin(world: World, *, ports: int = 1) -> "asyncio.Task[Process]":
    """Begin to replace `r` and go on when the new process is asked whether it is ready."""
    replacing = asyncio.create_task(world.replacer.replace(spec("r", ports=ports, binary=NEW), "SIGHUP"))
    if ports:
        await world.until(lambda: 10001 in world.readiness.waiting)
    return replacing


async def swapped(world: World) -> Process:
    """Replace `r`."""
    replacing = await begin(world)
    world.readiness.answer(10001)
    return await replacing


async def test_the_new_process_is_the_instance_that_the_old_one_was(world: World) -> None:
    """ProcessReplace has no field for a type or a volume."""
    world.supervisor.create(replace(spec("r", ports=1), instance_type="engine", volume_name="v"))
    await world.until(lambda: 10000 in world.readiness.waiting)
    world.readiness.answer(10000)
    await world.until(lambda: world.supervisor.get("r").state is State.RUNNING)
    replacing = await begin(world)
    world.readiness.answer(10001)
    told = (await replacing).spec
    assert (told.binary, told.instance_type, told.volume_name) == (NEW, "engine", "v")


@pytest.mark.parametrize(
    ("caller", "given"),
    [(None, REPLACE_TIMEOUT), (180.0, REPLACE_TIMEOUT), (10.0, 9.0), (0.0, 0.0)],
    ids=["no deadline", "late", "soon", "over"],
)
async def test_a_new_process_has_the_time_of_a_replacement_but_less_than_its_caller(
    world: World, old: Process, caller: float | None, given: float
) -> None:
    assert world.readiness.within == {10000: READY_TIMEOUT}
    wanted = spec("r", ports=1, binary=NEW)
    replacing = asyncio.create_task(world.replacer.replace(wanted, "SIGHUP", caller))
    await world.until(lambda: 10001 in world.readiness.waiting)
    assert world.readiness.within[10001] == given
    world.readiness.answer(10001, "not ready")
    with pytest.raises(DeadlineExceededError, match="the old process is untouched"):
        await replacing
    assert world.supervisor.get("r") == old


async def test_a_new_process_that_has_failed_is_killed_soon(world: World, old: Process) -> None:
    """It holds ports beside the old one, and somebody may try again."""
    replacing = await begin(world)
    world.readiness.answer(10001, "not ready")
    with pytest.raises(DeadlineExceededError):
        await replacing
    child = world.spawner.child(NEW_UUID)
    assert [name for name, _ in child.signals] == ["SIGINT"]
    world.clock.advance(1)
    assert [name for name, _ in child.signals] == ["SIGINT", "SIGKILL"]
    await untouched(world, old)


async def ends(world: World, uuid: str) -> list[str]:
    """Let a process that is being stopped end, and return the states told about it."""
    world.spawner.child(uuid).exit()
    await world.until(lambda: "deleted" in world.events.states(uuid))
    return world.events.states(uuid)


async def untouched(world: World, old: Process) -> None:
    """Check that the old process serves as before and that the new one is ended without a trace."""
    assert world.supervisor.processes() == {"r": old}
    assert world.child(old).signals == []
    if any(process.uuid == NEW_UUID for process in world.supervisor.remaining):
        await ends(world, NEW_UUID)
    assert world.supervisor.remaining == [old]
    assert (world.supervisor.registry.free_ports, world.logs.writers["r"]) == (9, 1)


async def test_the_new_process_takes_the_name_once_it_runs_and_the_old_one_is_ended(
    world: World, old: Process
) -> None:
    replacing = await begin(world)
    assert world.supervisor.get("r") == old, "the old one serves until the new one does"
    world.readiness.answer(10001)
    new = await replacing
    assert (new.uuid, new.state, new.spec.binary) == (NEW_UUID, State.RUNNING, NEW)
    assert world.supervisor.processes() == {"r": new}
    assert world.child(old).signals == [("SIGHUP", False)]
    assert world.supervisor.registry.free_ports == 8, "the old one keeps its port until it has ended"
    assert await ends(world, old.uuid) == ["starting", "running", "stopping", "stopped", "deleted"]
    assert world.supervisor.processes() == {"r": new}
    assert (world.supervisor.registry.free_ports, world.logs.writers["r"]) == (9, 1)
    assert world.states(new) == ["starting", "running"]


async def test_an_old_process_that_ignores_the_signal_does_not_hold_up_the_answer(
    world: World, old: Process
) -> None:
    new = await swapped(world)
    world.clock.advance(60)
    assert world.child(old).signals == [("SIGHUP", False), ("SIGKILL", True)]
    assert world.supervisor.processes() == {"r": new}
    assert {process.uuid for process in world.supervisor.remaining} == {old.uuid, new.uuid}


async def test_the_process_that_has_the_name_is_the_one_that_is_deleted(world: World, old: Process) -> None:
    new = await swapped(world)
    with pytest.raises(NotFoundError):
        world.supervisor.delete("r", old.uuid)
    world.supervisor.delete("r", new.uuid)
    await ends(world, new.uuid)
    assert world.supervisor.processes() == {}
    await ends(world, old.uuid)
    assert (world.supervisor.remaining, world.supervisor.registry.free_ports) == ([], 10)


async def test_a_process_that_failed_can_be_replaced(world: World, old: Process) -> None:
    world.child(old).exit(ExitStatus(code=1))
    await world.until(lambda: world.child(old).gone)
    new = await swapped(world)
    assert world.supervisor.processes() == {"r": new}
    assert world.states(old) == ["starting", "running", "error", "deleted"]


async def test_a_process_without_ports_can_replace_one(world: World, old: Process) -> None:
    replacing = await begin(world, ports=0)
    await world.until(lambda: world.clock.delays == [0])
    world.clock.advance()
    assert (await replacing).ports is None
    assert world.child(old).signals == [("SIGHUP", False)]


async def test_an_old_process_that_gets_ready_meanwhile_has_not_changed(world: World) -> None:
    old = world.supervisor.create(spec("r", ports=1))
    replacing = await begin(world)
    world.readiness.answer(10000)
    await world.told(old, "running")
    world.readiness.answer(10001)
    assert (await replacing).uuid == NEW_UUID
    assert world.child(old).signals == [("SIGHUP", False)]


async def test_the_same_binary_changes_nothing(world: World, old: Process) -> None:
    assert await world.replacer.replace(spec("r", ports=2), "SIGHUP") == old
    assert len(world.spawner.children) == 1
    await untouched(world, old)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL", "", "sighup", "1"])
async def test_only_sighup_may_end_the_old_process(world: World, old: Process, signal: str) -> None:
    with pytest.raises(InvalidArgumentError, match="only SIGHUP is possible"):
        await world.replacer.replace(spec("r", binary=NEW), signal)
    await untouched(world, old)


async def test_a_wrong_spec_is_refused(world: World, old: Process) -> None:
    with pytest.raises(InvalidArgumentError, match=r"set spec\.binary"):
        await world.replacer.replace(spec("r", binary=""), "SIGHUP")
    await untouched(world, old)


async def test_an_unknown_name_is_not_found(world: World, old: Process) -> None:
    with pytest.raises(NotFoundError, match="'other'"):
        await world.replacer.replace(spec("other", binary=NEW), "SIGHUP")
    await untouched(world, old)


async def test_a_process_that_is_being_deleted_is_not_replaced(world: World, old: Process) -> None:
    world.supervisor.delete("r")
    with pytest.raises(FailedPreconditionError, match="it is being deleted"):
        await world.replacer.replace(spec("r", binary=NEW), "SIGHUP")
    assert len(world.spawner.children) == 1
    assert (await ends(world, old.uuid))[-1] == "deleted"


async def test_without_ports_for_both_nothing_is_replaced(world: World, old: Process) -> None:
    with pytest.raises(ResourceExhaustedError):
        await world.replacer.replace(spec("r", binary=NEW, ports=10), "SIGHUP")
    await untouched(world, old)
    assert (await swapped(world)).uuid != old.uuid, "a failed attempt does not stand in the way"


async def test_while_the_daemon_ends_nothing_is_replaced(world: World, old: Process) -> None:
    ending = asyncio.create_task(world.supervisor.shutdown(20))
    await world.told(old, "stopping")
    for binary in ("/bin/r", NEW):
        with pytest.raises(UnavailableError, match="cannot replace r: the instance manager is ending"):
            await world.replacer.replace(spec("r", binary=binary), "SIGHUP")
    assert (await ends(world, old.uuid))[-1] == "deleted"
    assert await ending == []


async def test_a_new_process_that_is_never_ready_is_ended_and_the_old_one_serves_on(
    world: World, old: Process
) -> None:
    replacing = await begin(world)
    world.readiness.answer(10001, "nothing listens")
    with pytest.raises(DeadlineExceededError, match="nothing listens; the old process is untouched"):
        await replacing
    assert world.spawner.child(NEW_UUID).signals == [("SIGINT", False)]
    await untouched(world, old)
    assert world.events.states(NEW_UUID) == ["starting", "error", "deleted"]


async def test_a_new_process_that_was_never_ready_and_ends_at_the_first_signal_was_late_all_the_same(
    world: World, old: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacing = await begin(world)
    new = world.spawner.child(NEW_UUID)
    monkeypatch.setattr(new, "signal", lambda name, *, session: new.exit(ExitStatus(signal=name)))  # noqa: ARG005
    world.readiness.answer(10001, "nothing listens")
    with pytest.raises(DeadlineExceededError, match="nothing listens; the old process is untouched"):
        await replacing
    await world.until(lambda: len(world.supervisor.remaining) == 1)
    await untouched(world, old)


@pytest.mark.parametrize(
    ("status", "why", "state"),
    [
        (ExitStatus(), r"ended at once \(exit status 0\)", "stopped"),
        (ExitStatus(code=3), "failed: exit status 3", "error"),
        (ExitStatus(signal="SIGSEGV"), "failed: signal: SIGSEGV", "error"),
    ],
    ids=str,
)
async def test_a_new_process_that_ends_at_once_changes_nothing(
    world: World, old: Process, status: ExitStatus, why: str, state: str
) -> None:
    replacing = await begin(world)
    world.spawner.child(NEW_UUID).exit(status)
    with pytest.raises(FailedPreconditionError, match=f"{why}; the old process is untouched"):
        await replacing
    await world.until(lambda: len(world.supervisor.remaining) == 1)
    await untouched(world, old)
    assert world.events.states(NEW_UUID) == ["starting", state, "deleted"]


async def test_a_new_binary_that_cannot_be_executed_changes_nothing(world: World, old: Process) -> None:
    world.spawner.failures.append(CannotExecuteError("cannot execute /bin/new: Permission denied"))
    with pytest.raises(FailedPreconditionError, match="cannot execute /bin/new: Permission denied"):
        await world.replacer.replace(spec("r", ports=1, binary=NEW), "SIGHUP")
    await untouched(world, old)
    assert world.events.states(NEW_UUID) == ["starting", "error", "deleted"]


async def test_a_new_process_that_ends_as_soon_as_it_runs_changes_nothing(world: World, old: Process) -> None:
    replacing = await begin(world, ports=0)
    await world.until(lambda: world.clock.delays == [0])
    world.clock.advance()
    world.spawner.child(NEW_UUID).exit(ExitStatus(code=1))
    with pytest.raises(FailedPreconditionError, match="exit status 1"):
        await replacing
    assert world.events.states(NEW_UUID)[:3] == ["starting", "running", "error"]
    await world.until(lambda: len(world.supervisor.remaining) == 1)
    await untouched(world, old)
