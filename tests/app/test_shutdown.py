"""The shutdown: everything is ended in parallel, nothing is started, nothing waits for ever."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from instance_manager.app.broadcast import Pings
from instance_manager.app.engine import Completion
from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.core.errors import UnavailableError
from instance_manager.core.process import Body, ExitStatus, Process
from instance_manager.core.spec import ProcessSpec
from instance_manager.daemon.run import _shut_down, _why_left
from instance_manager.daemon.settings import OnStop
from instance_manager.platform.background import Background
from tests.support.world import RETRY_INTERVAL, STOP_TIMEOUT, World, spec


def shut_down(world: World, grace: float) -> "asyncio.Task[list[Process]]":
    """Begin a shutdown and go on once it has begun."""
    return asyncio.get_running_loop().create_task(world.supervisor.shutdown(grace))


async def test_a_supervisor_without_processes_ends_at_once(world: World) -> None:
    draining = [world.supervisor.draining]
    assert await world.supervisor.shutdown(60) == []
    draining.append(world.supervisor.draining)
    assert draining == [False, True]
    assert world.clock.timers == set()


async def test_every_process_is_told_to_end_at_the_same_time(world: World) -> None:
    processes = [await world.running(name, ports=1) for name in ("a", "b", "c")]
    starting = world.supervisor.create(spec("d", ports=1))
    failed = await world.running("e")
    world.child(failed).exit(ExitStatus(code=1))
    ending = shut_down(world, 20)
    await world.told(starting, "stopping")
    for process in (*processes, starting):
        assert world.child(process).signals == [("SIGINT", False)]
        world.child(process).exit()
    assert await ending == []
    assert world.supervisor.registry.free_ports == 10
    assert world.supervisor.processes() == {}
    assert all(world.states(p)[-1] == "deleted" for p in (*processes, starting, failed))
    assert world.clock.timers == set()


async def test_processes_that_obey_end_by_themselves(make_world: Callable[..., World]) -> None:
    world = make_world(obeys={"SIGINT"})
    for name in ("a", "b", "c"):
        await world.running(name, ports=1)
    assert await world.supervisor.shutdown(20) == []
    assert world.supervisor.remaining == []


async def test_what_has_not_ended_after_the_grace_is_killed(world: World) -> None:
    slow = await world.running("slow")
    early = await world.running("early")
    world.supervisor.delete("early")
    ending = shut_down(world, 20)
    await world.told(slow, "stopping")
    world.clock.advance(19.5)
    assert ("SIGKILL", True) not in world.child(slow).signals + world.child(early).signals
    world.clock.advance(0.5)
    for process in (slow, early):
        assert world.child(process).signals == [("SIGINT", False), ("SIGKILL", True)]
        world.child(process).exit(ExitStatus(signal="SIGKILL"))
    assert await ending == []


async def test_a_process_that_cannot_be_ended_is_given_up_and_named(world: World) -> None:
    stuck, other = await world.running("stuck", ports=1), await world.running("other")
    ending = shut_down(world, 20)
    await world.told(stuck, "stopping")
    world.child(other).exit()
    await world.told(other, "deleted")
    world.clock.advance(24.5)
    assert not ending.done()
    world.clock.advance(0.5)
    left = await ending
    assert [process.name for process in left] == ["stuck"]
    assert left[0].error_msg.startswith("cannot be killed, trying again")
    assert world.supervisor.registry.free_ports == 9


async def test_descendants_that_remain_hold_a_shutdown_up_only_so_long(world: World) -> None:
    process = await world.running("r")
    world.child(process).remains.extend(["pid 8 lives on"] * 100)
    ending = shut_down(world, 2)
    await world.told(process, "stopping")
    world.child(process).exit()
    for _ in range(7):
        await world.until(lambda: RETRY_INTERVAL in world.clock.delays)
        world.clock.advance(RETRY_INTERVAL)
    assert [left.error_msg for left in await ending] == [
        "cannot end what it left behind, trying again: pid 8 lives on"
    ]


async def test_hurry_kills_without_waiting_for_the_grace(world: World) -> None:
    first, second = await world.running("a"), await world.running("b")
    ending = shut_down(world, 600)
    await world.told(second, "stopping")
    world.supervisor.force_shutdown()
    for process in (first, second):
        assert world.child(process).signals == [("SIGINT", False)]
    world.clock.advance(0)
    for process in (first, second):
        assert world.child(process).signals == [("SIGINT", False), ("SIGKILL", True)]
        world.child(process).exit(ExitStatus(signal="SIGKILL"))
    assert await ending == []


async def test_hurry_just_before_a_shutdown_takes_its_grace_away(world: World) -> None:
    process = await world.running("r")
    world.supervisor.force_shutdown()
    ending = shut_down(world, 600)
    await world.told(process, "stopping")
    world.clock.advance(0)
    assert world.child(process).signals == [("SIGINT", False), ("SIGKILL", True)]
    world.child(process).exit(ExitStatus(signal="SIGKILL"))
    assert await ending == []


async def test_what_has_survived_sigkill_before_a_shutdown_gets_it_again_soon(world: World) -> None:
    stuck, other = await world.running("stuck"), await world.running("other")
    world.supervisor.delete("stuck")
    world.clock.advance(STOP_TIMEOUT)
    ending = shut_down(world, 600)
    await world.told(other, "stopping")
    world.clock.advance(RETRY_INTERVAL)
    assert world.child(stuck).signals == [("SIGINT", False), ("SIGKILL", True), ("SIGKILL", True)]
    for process in (stuck, other):
        world.child(process).exit()
    assert await ending == []


async def test_nothing_is_started_during_and_after_a_shutdown(world: World) -> None:
    process = await world.running("r")
    ending = shut_down(world, 20)
    await world.told(process, "stopping")
    assert world.supervisor.draining
    with pytest.raises(UnavailableError, match="cannot create new: the instance manager is ending"):
        world.supervisor.create(spec("new"))
    world.child(process).exit()
    await ending
    with pytest.raises(UnavailableError):
        world.supervisor.create(spec("new"))
    assert (len(world.spawner.children), world.supervisor.remaining) == (1, [])


async def test_a_shutdown_ends_a_replacement_that_is_under_way(world: World) -> None:
    old = await world.running("r", ports=1)
    replacing = asyncio.create_task(world.replacer.replace(spec("r", ports=1, binary="/bin/new"), "SIGHUP"))
    await world.until(lambda: 10001 in world.readiness.waiting)
    ending = shut_down(world, 20)
    with pytest.raises(UnavailableError, match="the instance manager is ending"):
        await replacing
    for child in world.spawner.children:
        assert child.signals == [("SIGINT", False)]
        child.exit()
    assert await ending == []
    assert world.states(old) == ["starting", "running", "stopping", "stopped", "deleted"]
    assert world.events.states("uuid-1") == ["starting", "stopping", "stopped", "deleted"]


async def test_a_shutdown_may_come_right_after_a_replacement_that_cannot_be_executed(world: World) -> None:
    old = await world.running("r")
    world.spawner.obeys = {"SIGINT"}
    world.child(old).obeys = {"SIGINT"}
    world.spawner.failures.append(CannotExecuteError("cannot execute /bin/new: Permission denied"))
    replacing = asyncio.create_task(world.replacer.replace(spec("r", binary="/bin/new"), "SIGHUP"))
    ending = shut_down(world, 20)
    results = await asyncio.gather(replacing, ending, return_exceptions=True)
    assert str(results[0]).startswith("cannot replace r by uuid-1: the new process failed: cannot execute")
    assert results[1] == []
    assert world.events.states("uuid-1") == ["starting", "error", "deleted"]
    assert [c.process.uuid for c in world.events.changes if c.deleted].count("uuid-1") == 1
    assert world.journal.records == {}


async def test_what_was_not_killed_yet_is_killed_before_it_is_given_up(world: World) -> None:
    """The timer of the shutdown may be due before that of a process, after a stall."""
    slow = await world.running("slow")
    ending = shut_down(world, 20)
    await world.told(slow, "stopping")
    world.supervisor._give_up()
    assert not ending.done()
    world.clock.advance()
    assert world.child(slow).signals[-1] == ("SIGKILL", True)
    world.child(slow).exit(ExitStatus(signal="SIGKILL"))
    assert await ending == []


async def test_a_supervisor_that_leaves_its_processes_alone_starts_nothing_any_more(world: World) -> None:
    old = await world.running("r")
    world.supervisor.close()
    with pytest.raises(UnavailableError, match="the instance manager is ending"):
        world.supervisor.create(spec("more"))
    with pytest.raises(UnavailableError, match="the instance manager is ending"):
        await world.replacer.replace(spec("r", binary="/bin/new"), "SIGHUP")
    assert world.supervisor.processes() == {"r": old}
    assert world.child(old).signals == []


class LateServer:
    """A server that still answers a call that it has accepted before it was told to end."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    async def drain(self) -> None:
        """Go on answering."""

    async def stop(self, _: float) -> None:
        self._call()


@pytest.mark.parametrize("on_stop", OnStop)
async def test_a_call_that_is_answered_while_the_daemon_ends_creates_nothing(
    world: World, on_stop: OnStop
) -> None:
    refused: list[str] = []

    def create() -> None:
        with pytest.raises(UnavailableError, match="is ending") as error:
            world.supervisor.create(spec("late"))
        refused.append(str(error.value))

    async def end_strays() -> None:
        """End nothing: there are none."""

    drained = SimpleNamespace(drain=lambda: None, end_strays=end_strays)
    parts: Any = SimpleNamespace(
        supervisor=world.supervisor,
        server=LateServer(create),
        pings=Pings(),
        containment=drained,
        proxied=Completion(),
        background=Background(),
    )
    settings: Any = SimpleNamespace(on_stop=on_stop, shutdown_grace=1.0)
    assert await _shut_down(parts, settings) == 0
    assert len(refused) == 1
    assert world.spawner.children == []


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        (Body.ALIVE, "did not end after SIGINT, killed", "did not end after SIGINT, killed"),
        (
            Body.LEADER_EXITED,
            "did not end after SIGINT, killed",
            "did not end after SIGINT, killed; it has ended, but not all of its descendants were found",
        ),
        (Body.LEADER_EXITED, "", "it has ended, but not all of its descendants were found"),
    ],
)
def test_the_reason_for_which_a_process_is_left_behind_is_the_true_one(
    body: Body, error: str, told: str
) -> None:
    process = replace(Process(ProcessSpec("r", "/bin/r"), "u"), body=body, stop_error=error)
    assert _why_left(process).startswith(told)
