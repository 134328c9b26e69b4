"""Creating processes: what is answered, what is listed, and what is left when it fails."""

import pytest
from structlog.testing import capture_logs

from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.app.registry import Registry
from instance_manager.app.supervised_process import Waiting
from instance_manager.core.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, ExitStatus, Identity, State
from tests.support.fakes import FakeLogs
from tests.support.world import READY_TIMEOUT, World, spec


async def test_a_created_process_is_starting_and_listed_at_once(world: World) -> None:
    created = world.supervisor.create(spec("r", ports=2))
    assert (created.name, created.uuid, created.state) == ("r", "uuid-0", State.STARTING)
    assert created.ports == PortRange(10000, 10001)
    assert created.identity == Identity(pid=1000, start_time=0)
    assert world.supervisor.get("r") == created
    assert world.supervisor.processes() == {"r": created}
    assert world.states(created) == ["starting"]


async def test_a_process_is_spawned_with_its_name_uuid_ports_and_log(world: World) -> None:
    created = world.supervisor.create(spec("r", ports=2))
    order = world.child(created).order
    assert (order.name, order.uuid, order.output) == ("r", "uuid-0", FakeLogs.DESCRIPTOR)
    assert order.command == ("/bin/r", "10000", "10001")
    assert world.logs.writers["r"] == 1


async def test_a_process_with_ports_runs_once_its_first_port_answers(world: World) -> None:
    created = world.supervisor.create(spec("r", ports=2))
    await world.until(lambda: bool(world.readiness.waiting))
    assert world.readiness.within == {10000: READY_TIMEOUT}
    assert world.supervisor.get("r").state is State.STARTING
    world.readiness.answer(10000)
    await world.told(created, "running")
    assert world.supervisor.get("r").state is State.RUNNING


@pytest.mark.parametrize("reason", [None, "no answer"])
async def test_what_a_process_is_waited_for_is_known_until_the_wait_is_over(
    world: World, reason: str | None
) -> None:
    created = world.supervisor.create(spec("r", ports=2))
    assert world.supervisor.waiting("r") is None
    await world.until(lambda: bool(world.readiness.waiting))
    purpose = "its health service to say SERVING: nobody has answered for 10000"
    assert world.supervisor.waiting("r") == Waiting(world.clock.now(), purpose)
    assert world.supervisor.get("r").error_msg == ""
    assert world.states(created) == ["starting"]
    world.readiness.answer(10000, reason)
    await world.told(created, "error" if reason else "running")
    assert world.supervisor.waiting("r") is None
    assert world.supervisor.waiting("unknown") is None


def test_reserved_ports_are_never_allocated_although_nobody_has_them() -> None:
    registry = Registry(PortRange(10, 15), reserved={9, 10, 12})
    with capture_logs() as lines:
        assert [registry.allocate(count) for count in (2, 1)] == [PortRange(13, 14), PortRange(15, 15)]
        assert registry.allocate(1) == PortRange(11, 11)
        with pytest.raises(ResourceExhaustedError, match="others have 10, 12"):
            registry.allocate(1)
    assert lines == [], "no other program has them"


async def test_a_process_without_ports_runs_right_after_it_was_created(world: World) -> None:
    created = world.supervisor.create(spec("r"))
    assert (created.state, created.ports) == (State.STARTING, None)
    world.clock.advance(0)
    assert world.supervisor.get("r").state is State.RUNNING
    assert world.states(created) == ["starting", "running"]


async def test_ports_that_other_programs_have_are_left_out_which_is_logged_once_each(world: World) -> None:
    held = {10000, 10003}
    world.supervisor.registry._port_is_free = lambda port: port not in held
    with capture_logs() as lines:
        assert world.supervisor.create(spec("a", ports=2)).ports == PortRange(10001, 10002)
        assert world.supervisor.create(spec("b", ports=4)).ports == PortRange(10004, 10007)
        held.add(10008)
        with pytest.raises(ResourceExhaustedError, match="others have 10008"):
            world.supervisor.create(spec("c", ports=2))
    left_out = [line["port"] for line in lines if line["event"].startswith("port left out")]
    assert left_out == [10000, 10003, 10008]
    held.clear()
    assert world.supervisor.create(spec("d", ports=1)).ports == PortRange(10008, 10008)


async def test_a_process_that_never_answers_is_an_error_and_is_ended(world: World) -> None:
    created = world.supervisor.create(spec("r", ports=1))
    await world.until(lambda: bool(world.readiness.waiting))
    world.readiness.answer(10000, "nothing listens")
    await world.told(created, "error")
    assert world.supervisor.get("r").error_msg == "nothing listens"
    assert world.child(created).signals == [("SIGINT", False)]
    assert world.supervisor.registry.free_ports == 9


@pytest.mark.parametrize(
    ("status", "state", "message"),
    [
        (ExitStatus(), State.STOPPED, ""),
        (ExitStatus(code=3), State.ERROR, "exit status 3"),
        (ExitStatus(signal="SIGSEGV"), State.ERROR, "signal: SIGSEGV"),
    ],
    ids=str,
)
async def test_a_process_that_ends_by_itself_stays_listed_with_its_ports(
    world: World, status: ExitStatus, state: State, message: str
) -> None:
    created = await world.running("r", ports=3)
    world.child(created).exit(status)
    await world.until(lambda: world.child(created).gone)
    ended = world.supervisor.get("r")
    assert (ended.state, ended.error_msg, ended.exit) == (state, message, status)
    assert world.states(created) == ["starting", "running", state]
    assert world.supervisor.registry.free_ports == 7


async def test_a_process_that_ends_before_it_is_ready_is_not_asked_any_longer(world: World) -> None:
    created = world.supervisor.create(spec("r", ports=1))
    await world.until(lambda: bool(world.readiness.waiting))
    world.child(created).exit(ExitStatus(code=1))
    await world.until(lambda: world.child(created).gone)
    assert world.readiness.waiting == {}
    other = world.supervisor.create(spec("portless"))
    world.child(other).exit(ExitStatus(code=1))
    assert world.clock.timers == set()
    assert world.states(created) == world.states(other) == ["starting", "error"]


async def test_a_binary_that_cannot_be_executed_is_an_answer_with_state_error(world: World) -> None:
    world.spawner.failures.append(CannotExecuteError("cannot execute /bin/r: No such file or directory"))
    created = world.supervisor.create(spec("r", ports=2))
    assert (created.state, created.body) == (State.ERROR, Body.GONE)
    assert created.error_msg == "cannot execute /bin/r: No such file or directory"
    assert world.supervisor.processes() == {"r": created}
    assert world.states(created) == ["starting", "error"]
    world.supervisor.delete("r")
    assert world.states(created) == ["starting", "error", "deleted"]
    assert (world.supervisor.remaining, world.supervisor.registry.free_ports, world.logs.writers["r"]) == (
        [],
        10,
        0,
    )


async def test_a_name_that_is_taken_is_refused_until_its_process_is_gone(world: World) -> None:
    first = await world.running("r", ports=1)
    with pytest.raises(AlreadyExistsError, match=r"already exists \(running\); delete it first"):
        world.supervisor.create(spec("r"))
    world.supervisor.delete("r")
    with pytest.raises(AlreadyExistsError, match=r"already exists \(stopping\)"):
        world.supervisor.create(spec("r"))
    assert len(world.spawner.children) == 1
    world.child(first).exit()
    await world.told(first, "deleted")
    second = world.supervisor.create(spec("r", ports=1))
    assert second.uuid != first.uuid
    assert second.ports == PortRange(10001, 10001)


async def test_a_wrong_spec_is_refused_before_anything_happens(world: World) -> None:
    with pytest.raises(InvalidArgumentError, match="DNS-1123"):
        world.supervisor.create(spec("../r"))
    assert (world.events.revision, world.supervisor.remaining, world.spawner.children) == (0, [], [])


async def test_a_process_without_free_ports_is_refused_and_leaves_nothing(world: World) -> None:
    world.supervisor.create(spec("a", ports=8))
    with pytest.raises(ResourceExhaustedError, match="3 consecutive ports out of 10000-10009"):
        world.supervisor.create(spec("b", ports=3))
    assert list(world.supervisor.processes()) == ["a"]
    assert len(world.supervisor.remaining) == 1
    assert world.supervisor.create(spec("c", ports=2)).ports == PortRange(10008, 10009)


async def test_a_machine_without_room_for_a_process_refuses_it_and_leaves_nothing(world: World) -> None:
    world.spawner.failures.append(ResourceExhaustedError("out of PIDs"))
    with pytest.raises(ResourceExhaustedError, match="out of PIDs"):
        world.supervisor.create(spec("r", ports=2))
    assert (world.supervisor.processes(), world.supervisor.remaining) == ({}, [])
    assert (world.supervisor.registry.free_ports, world.logs.writers["r"], world.clock.timers) == (
        10,
        0,
        set(),
    )
    assert world.events.states("uuid-0") == ["starting", "stopping", "error", "deleted"]
    assert world.supervisor.create(spec("r", ports=2)).state is State.STARTING


async def test_a_machine_without_a_descriptor_for_a_log_refuses_and_ends_no_other_log(world: World) -> None:
    await world.running("r", ports=1)
    world.logs.failures.append(ResourceExhaustedError("cannot open the log of r: too many open files"))
    with pytest.raises(ResourceExhaustedError, match="too many open files"):
        await world.replacer.replace(spec("r", binary="/bin/new", ports=1), "SIGHUP")
    assert world.logs.writers["r"] == 1
    assert (len(world.supervisor.remaining), world.supervisor.registry.free_ports) == (1, 9)
    assert world.supervisor.get("r").state is State.RUNNING


async def test_a_process_that_was_never_created_is_not_found(world: World) -> None:
    await world.running("r")
    for ask in (world.supervisor.get, world.supervisor.delete):
        with pytest.raises(NotFoundError, match="'other': it was never created or has been deleted"):
            ask("other")
    assert world.supervisor.get("r").state is State.RUNNING
