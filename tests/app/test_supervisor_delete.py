"""Ending processes: signals, what hinders an end, and when ports and names are free again."""

import pytest

from instance_manager.core.change import Change
from instance_manager.core.errors import NotFoundError
from instance_manager.core.process import Body, ExitStatus, State
from tests.support.world import RETRY_INTERVAL, STOP_TIMEOUT, World, spec


async def test_a_deleted_process_is_signalled_and_leaves_the_list_when_it_has_ended(world: World) -> None:
    process = await world.running("r", ports=1)
    deleting = world.supervisor.delete("r", process.uuid)
    assert deleting.state is State.STOPPING
    assert world.supervisor.get("r") == deleting
    assert world.child(process).signals == [("SIGINT", False)]
    world.child(process).exit(ExitStatus(code=1))
    await world.told(process, "deleted")
    assert world.states(process) == ["starting", "running", "stopping", "stopped", "deleted"]
    assert (world.supervisor.processes(), world.supervisor.remaining) == ({}, [])
    assert world.clock.timers == set()
    with pytest.raises(NotFoundError):
        world.supervisor.get("r")


async def test_a_delete_with_another_uuid_hits_nothing(world: World) -> None:
    process = await world.running("r")
    with pytest.raises(
        NotFoundError, match=f"cannot find a process named 'r' with UUID other: .* has UUID {process.uuid}"
    ):
        world.supervisor.delete("r", "other")
    assert world.supervisor.get("r").state is State.RUNNING
    assert world.child(process).signals == []


async def test_a_process_can_be_deleted_right_after_it_was_created(world: World) -> None:
    process = world.supervisor.create(spec("r", ports=1))
    world.supervisor.delete("r")
    world.child(process).exit()
    await world.told(process, "deleted")
    assert world.states(process) == ["starting", "stopping", "stopped", "deleted"]
    assert world.readiness.within == {}, "it was never asked"
    assert world.supervisor.registry.free_ports == 10


async def test_a_process_can_be_deleted_while_it_gets_ready(world: World) -> None:
    process = world.supervisor.create(spec("r", ports=1))
    await world.until(lambda: 10000 in world.readiness.waiting)
    world.supervisor.delete("r")
    world.readiness.answer(10000)
    world.child(process).exit()
    await world.told(process, "deleted")
    assert world.states(process) == ["starting", "stopping", "stopped", "deleted"]
    assert world.readiness.waiting == {}


async def test_a_second_delete_is_answered_and_does_nothing(world: World) -> None:
    process = await world.running("r")
    first = world.supervisor.delete("r")
    assert world.supervisor.delete("r") == first
    assert world.child(process).signals == [("SIGINT", False)]
    assert world.clock.delays == [STOP_TIMEOUT]


async def test_a_process_that_has_ended_is_deleted_at_once(world: World) -> None:
    process = await world.running("r", ports=1)
    world.child(process).exit()
    await world.until(lambda: world.child(process).gone)
    assert world.supervisor.delete("r").state is State.STOPPED
    assert world.states(process) == ["starting", "running", "stopped", "deleted"]
    assert (world.supervisor.remaining, world.supervisor.registry.free_ports) == ([], 10)


async def test_ports_and_name_are_free_only_when_all_descendants_have_ended(world: World) -> None:
    process = await world.running("r", ports=4)
    child = world.child(process)
    child.tree.clear()
    world.supervisor.delete("r")
    child.exit()
    await world.until(lambda: child.trees_asked == 1)
    assert world.supervisor.get("r").state is State.STOPPING
    assert (world.supervisor.registry.free_ports, world.logs.writers["r"]) == (6, 1)
    child.tree.set()
    await world.told(process, "deleted")
    assert (world.supervisor.registry.free_ports, world.logs.writers["r"]) == (10, 0)
    assert world.supervisor.processes() == {}


async def test_a_process_that_ignores_the_signal_is_killed_after_the_stop_timeout(world: World) -> None:
    process = await world.running("r")
    world.supervisor.delete("r")
    world.clock.advance(STOP_TIMEOUT - 0.5)
    assert world.child(process).signals == [("SIGINT", False)]
    world.clock.advance(0.5)
    assert world.child(process).signals == [("SIGINT", False), ("SIGKILL", True)]
    assert world.supervisor.get("r").error_msg == "did not end after SIGINT, killed"
    world.child(process).exit(ExitStatus(signal="SIGKILL"))
    await world.told(process, "deleted")
    assert world.states(process) == ["starting", "running", "stopping", "stopped", "deleted"]


async def test_a_process_that_obeys_is_never_killed(world: World) -> None:
    world.spawner.obeys = {"SIGINT"}
    process = await world.running("r")
    world.supervisor.delete("r")
    await world.told(process, "deleted")
    world.clock.advance(STOP_TIMEOUT * 2)
    assert world.child(process).signals == [("SIGINT", False)]


async def test_a_process_that_cannot_be_killed_stays_with_its_ports_and_is_tried_again(world: World) -> None:
    process = await world.running("r", ports=2)
    child = world.child(process)
    child.description = "pid 1000 (r) is in state D"
    world.supervisor.delete("r")
    world.clock.advance(STOP_TIMEOUT)
    for attempt in range(2, 6):
        world.clock.advance(RETRY_INTERVAL)
        assert child.signals == [("SIGINT", False)] + [("SIGKILL", True)] * attempt
        stuck = world.supervisor.get("r")
        assert stuck.state is State.STOPPING
        assert stuck.error_msg == "cannot be killed, trying again: pid 1000 (r) is in state D"
        assert world.supervisor.registry.free_ports == 8
    published = world.events.revision
    world.clock.advance(RETRY_INTERVAL)
    assert world.events.revision == published, "nothing new to tell"
    child.exit(ExitStatus(signal="SIGKILL"))
    await world.told(process, "deleted")
    assert world.supervisor.registry.free_ports == 10
    assert world.clock.timers == set()


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("pid 8 (x) is in state D", "pid 8 (x) is in state D"),
        (OSError("no /proc"), "looking for descendants failed: no /proc"),
    ],
    ids=["remains", "cannot look"],
)
async def test_descendants_that_remain_are_tried_again_after_a_while(
    world: World, trouble: str | OSError, reason: str
) -> None:
    process = await world.running("r", ports=2)
    child = world.child(process)
    child.remains.extend([trouble, trouble])
    world.supervisor.delete("r")
    child.exit()
    for attempt in (1, 2):
        await world.until(lambda: world.clock.delays == [RETRY_INTERVAL])
        assert child.trees_asked == attempt
        stuck = world.supervisor.get("r")
        assert stuck.state is State.STOPPING
        assert stuck.error_msg == f"cannot end what it left behind, trying again: {reason}"
        assert world.supervisor.registry.free_ports == 8
        world.clock.advance(RETRY_INTERVAL)
    await world.told(process, "deleted")
    assert (child.trees_asked, world.supervisor.registry.free_ports) == (3, 10)


async def test_a_crashed_process_with_descendants_is_deleted_when_they_are_gone(world: World) -> None:
    process = await world.running("r", ports=1)
    child = world.child(process)
    child.tree.clear()
    child.exit(ExitStatus(signal="SIGSEGV"))
    assert world.supervisor.delete("r").state is State.ERROR
    assert world.supervisor.get("r").error_msg == "signal: SIGSEGV"
    assert world.supervisor.registry.free_ports == 9
    child.tree.set()
    await world.told(process, "deleted")
    assert world.states(process) == ["starting", "running", "error", "deleted"]


async def test_a_process_that_was_not_ready_is_killed_in_the_end_and_can_be_deleted(world: World) -> None:
    process = world.supervisor.create(spec("r", ports=1))
    await world.until(lambda: 10000 in world.readiness.waiting)
    world.readiness.answer(10000, "nothing listens")
    await world.told(process, "error")
    assert world.supervisor.delete("r").state is State.ERROR
    world.clock.advance(STOP_TIMEOUT)
    assert world.child(process).signals == [("SIGINT", False), ("SIGKILL", True)]
    assert world.supervisor.get("r").error_msg == "nothing listens; did not end after SIGINT, killed"
    world.child(process).exit(ExitStatus(signal="SIGKILL"))
    await world.told(process, "deleted")
    assert world.states(process) == ["starting", "error", "deleted"]


async def test_an_end_that_is_reported_while_the_signal_is_sent_comes_after_it(world: World) -> None:
    process = await world.running("r")
    child = world.child(process)
    child.signal = lambda *_, **__: child.exit()  # type: ignore[method-assign]
    assert world.supervisor.delete("r").body is Body.LEADER_EXITED
    assert world.clock.timers == set(), "the timer of the stop was set before the end, and called off by it"
    await world.told(process, "deleted")


async def test_whatever_watchers_see_of_a_process_is_in_the_journal_before(world: World) -> None:
    early: list[Change] = []
    world.events.observe(lambda change: None if change in world.journal.changes else early.append(change))
    process = await world.running("r")
    world.supervisor.delete("r")
    world.child(process).exit()
    await world.told(process, "deleted")
    assert world.journal.records == {}
    assert early == []
