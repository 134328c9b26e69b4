"""Replacing a process while others do something with it, or while nobody waits for the answer any more."""

import asyncio
from collections.abc import Sequence

import pytest

from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.change import Change
from instance_manager.core.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
)
from instance_manager.core.process import ExitStatus, Process, State
from tests.support.world import World, spec

NEW = "/bin/new"
NEW_UUID = "uuid-1"


@pytest.fixture
async def old(world: World) -> Process:
    """The process to be replaced, running on port 10000."""
    return await world.running("r", ports=1)


@pytest.fixture
async def replacing(world: World, old: Process) -> "asyncio.Task[Process]":
    """A replacement whose new process is asked on port 10001 whether it is ready."""
    assert old.ports is not None
    task = asyncio.create_task(world.replacer.replace(spec("r", ports=1, binary=NEW), "SIGHUP"))
    await world.until(lambda: 10001 in world.readiness.waiting)
    return task


async def new_one_ends(world: World) -> None:
    """Check that the new process is being ended, and let it."""
    assert world.spawner.child(NEW_UUID).signals == [("SIGINT", False)]
    world.spawner.child(NEW_UUID).exit()
    await world.until(lambda: "deleted" in world.events.states(NEW_UUID))
    assert world.events.states(NEW_UUID) == ["starting", "running", "stopping", "stopped", "deleted"]


async def test_a_delete_during_a_replacement_is_never_undone(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    world.supervisor.delete("r")
    world.readiness.answer(10001)
    with pytest.raises(AlreadyExistsError, match="changed meanwhile; the new one is being ended"):
        await replacing
    assert world.supervisor.get("r").uuid == old.uuid
    world.child(old).exit()
    await world.told(old, "deleted")
    with pytest.raises(NotFoundError):
        world.supervisor.get("r")
    await new_one_ends(world)
    assert (world.supervisor.remaining, world.supervisor.registry.free_ports) == ([], 10)


async def test_a_delete_that_is_over_before_the_new_process_runs_is_not_undone_either(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    world.supervisor.delete("r")
    world.child(old).exit()
    await world.told(old, "deleted")
    world.readiness.answer(10001)
    with pytest.raises(AlreadyExistsError):
        await replacing
    assert world.supervisor.processes() == {}
    await new_one_ends(world)


async def test_a_delete_right_after_the_new_process_runs_but_before_the_swap_is_not_undone(
    world: World, old: Process
) -> None:
    replacing = asyncio.create_task(world.replacer.replace(spec("r", binary=NEW), "SIGHUP"))
    await world.until(lambda: world.clock.delays == [0])
    world.clock.advance()
    world.supervisor.delete("r")
    assert world.events.states(NEW_UUID) == ["starting", "running"]
    with pytest.raises(AlreadyExistsError):
        await replacing
    assert world.supervisor.get("r").uuid == old.uuid
    await new_one_ends(world)


async def test_a_process_created_under_the_name_meanwhile_keeps_it(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    world.supervisor.delete("r")
    world.child(old).exit()
    await world.told(old, "deleted")
    third = await world.running("r", ports=1)
    world.readiness.answer(10001)
    with pytest.raises(AlreadyExistsError):
        await replacing
    assert world.supervisor.processes() == {"r": third}
    assert world.child(third).signals == []
    await new_one_ends(world)


async def test_an_old_process_that_ends_meanwhile_is_not_replaced(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    world.child(old).exit(ExitStatus(code=1))
    world.readiness.answer(10001)
    with pytest.raises(AlreadyExistsError):
        await replacing
    assert world.supervisor.get("r").uuid == old.uuid
    assert world.supervisor.get("r").state is State.ERROR
    await new_one_ends(world)


async def test_one_name_is_replaced_once_at_a_time(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    with pytest.raises(AlreadyExistsError, match="being replaced already; ask again later"):
        await world.replacer.replace(spec("r", binary="/bin/third"), "SIGHUP")
    assert len(world.spawner.children) == 2
    assert await world.replacer.replace(spec("r"), "SIGHUP") == old, "the same binary needs no turn"
    world.readiness.answer(10001)
    assert (await replacing).uuid == NEW_UUID
    again = asyncio.create_task(world.replacer.replace(spec("r", ports=1), "SIGHUP"))
    await world.until(lambda: 10002 in world.readiness.waiting)
    world.readiness.answer(10002)
    assert (await again).uuid == "uuid-2"


async def test_different_names_are_replaced_at_the_same_time(
    world: World, replacing: "asyncio.Task[Process]"
) -> None:
    await world.running("other", ports=1)
    second = asyncio.create_task(world.replacer.replace(spec("other", ports=1, binary=NEW), "SIGHUP"))
    await world.until(lambda: 10003 in world.readiness.waiting)
    world.readiness.answer(10003)
    world.readiness.answer(10001)
    assert [process.name for process in await asyncio.gather(replacing, second)] == ["r", "other"]


async def test_a_replacement_is_carried_through_when_its_caller_has_gone(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    replacing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replacing
    with pytest.raises(AlreadyExistsError, match="being replaced already"):
        await world.replacer.replace(spec("r", binary="/bin/third"), "SIGHUP")
    world.readiness.answer(10001)
    await world.told(old, "stopping")
    new = world.supervisor.get("r")
    assert (new.uuid, new.state) == (NEW_UUID, State.RUNNING)
    assert world.child(old).signals == [("SIGHUP", False)]
    assert await world.replacer.replace(spec("r", ports=1, binary=NEW), "SIGHUP") == new


async def test_a_replacement_whose_caller_has_gone_fails_without_noise_and_can_be_repeated(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    replacing.cancel()
    world.readiness.answer(10001, "nothing listens")
    await world.until(lambda: bool(world.spawner.child(NEW_UUID).signals))
    world.spawner.child(NEW_UUID).exit()
    await world.until(lambda: "deleted" in world.events.states(NEW_UUID))
    assert world.supervisor.processes() == {"r": old}
    again = asyncio.create_task(world.replacer.replace(spec("r", ports=1, binary=NEW), "SIGHUP"))
    await world.until(lambda: 10002 in world.readiness.waiting)
    world.readiness.answer(10002)
    assert (await again).uuid == "uuid-2"


async def test_an_entry_that_is_not_listed_cannot_be_swapped(world: World, old: Process) -> None:
    listed = world.supervisor.registry.find("r")
    beside = world.supervisor.start(spec("r", binary=NEW), replaces=old.uuid)
    with pytest.raises(ValueError, match="r is not listed any more"):
        world.supervisor.transfer_name(beside, listed)
    assert world.supervisor.processes() == {"r": old}


async def test_a_new_process_that_ends_as_soon_as_it_runs_does_not_get_the_name(
    world: World, old: Process, replacing: "asyncio.Task[Process]"
) -> None:
    def end(change: Change) -> None:
        """Let it end before anybody can act on that it runs."""
        if change.process.uuid == NEW_UUID and change.process.state is State.RUNNING:
            world.spawner.child(NEW_UUID).exit(ExitStatus(code=1))

    world.events.observe(end)
    world.readiness.answer(10001)
    with pytest.raises(FailedPreconditionError, match="the old process is untouched"):
        await replacing
    assert world.events.states(NEW_UUID)[:3] == ["starting", "running", "error"]
    assert world.supervisor.processes() == {"r": old}
    assert world.child(old).signals == []


async def test_a_daemon_that_dies_in_the_middle_of_a_swap_leaves_a_journal_in_which_the_name_is_somebodys(
    world: World, old: Process, replacing: "asyncio.Task[Process]", monkeypatch: pytest.MonkeyPatch
) -> None:
    write, listed = world.journal.record, []

    def record(record: JournalRecord, changes: Sequence[Change] = ()) -> None:
        write(record, changes)
        listed.append({uuid for uuid, each in world.journal.records.items() if each.listed})

    monkeypatch.setattr(world.journal, "record", record)
    world.readiness.answer(10001)
    await replacing
    assert all(listed)
    assert {old.uuid, NEW_UUID} in listed, "the new one claims it before the old one gives it up"
    assert listed[-1] == {NEW_UUID}
