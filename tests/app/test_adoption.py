"""Recovery over fakes: the daemon dies between any two steps, and the next one goes on."""

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from instance_manager.app import adoption
from instance_manager.app.adoption import Adoption
from instance_manager.app.interfaces import Adoptable, Child, Findings, JournalRecord, SpawnRequest, Unclear
from instance_manager.core.adoption import NEVER_SPAWNED, recovery_metadata
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec, command_line
from tests.support.fakes import FakeChild
from tests.support.world import READY_TIMEOUT, REPLACE_TIMEOUT, World, spec


class FakeAdopter:
    """Processes that live on, as a test says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.living: dict[str, Adoptable] = {}
        self.unclear: list[Unclear] = []
        self.looks = 0
        self.children: dict[str, FakeChild] = {}
        self.left: dict[str, FakeChild] = {}
        """What processes that have ended have left behind."""
        self.exits: dict[Identity, ExitStatus] = {}

    def add(self, process: Process, replaces: str = "", *, age: float = 0) -> None:
        """Let a process live."""
        assert process.identity is not None
        command = command_line(process.spec, process.ports)
        text = recovery_metadata(process, replaces)
        self.living[process.uuid] = Adoptable(
            process.name, process.uuid, text, command, process.identity, age
        )

    async def find(self, *, thorough: bool) -> Findings:  # noqa: ARG002 - it always is
        self.looks += 1
        self.world.notices.post()
        return Findings(tuple(self.living.values()), tuple(self.unclear))

    def adopt(
        self,
        identity: Identity,
        uuid: str,
        on_exit: Callable[[ExitStatus], None],
        on_doubt: Callable[[str], None],
    ) -> Child | None:
        self.on_doubt = on_doubt
        adoptable = self.living.get(uuid)
        if adoptable is None or adoptable.identity != identity:
            return None
        order = SpawnRequest(
            name=adoptable.name,
            uuid=uuid,
            command=adoptable.command,
            recovery_metadata=adoptable.recovery_metadata,
            output=1,
        )
        child = self.children[uuid] = FakeChild(
            order, identity, on_exit, obeys=["SIGINT", "SIGHUP"], notices=self.world.notices
        )
        return child

    def leftover_descendants(self, identity: Identity, uuid: str) -> Child:
        order = SpawnRequest(name="r", uuid=uuid, command=(), recovery_metadata="", output=1)
        nothing = FakeChild(order, identity, lambda _: None, obeys=[], notices=self.world.notices)
        child = self.left.get(uuid, nothing)
        assert child.identity == identity
        return child

    def exit_status(self, identity: Identity) -> ExitStatus | None:
        return self.exits.pop(identity, None)


def process(
    number: int, state: State, body: Body, *, name: str = "r", deletion_requested: bool = False
) -> Process:
    return Process(
        spec=ProcessSpec(name, f"/bin/r{number}", port_count=1, port_args=("--port=",)),
        uuid=f"journaled-{number}",
        ports=PortRange(10000 + number, 10000 + number),
        state=state,
        body=body,
        identity=Identity(100 + number, 1000),
        deletion_requested=deletion_requested,
    )


OLD = process(0, State.RUNNING, Body.ALIVE)
NEW = process(1, State.RUNNING, Body.ALIVE)


@pytest.fixture
def adopter(world: World) -> FakeAdopter:
    return FakeAdopter(world)


async def recover(world: World, adopter: FakeAdopter, *records: JournalRecord) -> None:
    recovery = Adoption(world.supervisor, world.replacer, adopter=adopter, readiness=world.readiness)
    await recovery.run(records)


async def test_a_running_process_is_as_it_was_and_nothing_is_told(world: World, adopter: FakeAdopter) -> None:
    adopter.add(OLD)
    await recover(world, adopter, JournalRecord(OLD, listed=True))
    assert world.supervisor.processes() == {"r": OLD}
    assert world.events.changes == []
    assert world.supervisor.registry.free_ports == 9


async def test_a_process_whose_spawn_was_never_recorded_is_found_by_what_it_carries(
    world: World, adopter: FakeAdopter
) -> None:
    """The daemon died between the spawn and writing down which OS process it is."""
    intent = replace(OLD, state=State.STARTING, body=Body.ABSENT, identity=None)
    adopter.add(OLD)
    await recover(world, adopter, JournalRecord(intent, listed=True))
    adopted = world.supervisor.get("r")
    assert (adopted.state, adopted.body, adopted.identity) == (State.STARTING, Body.ALIVE, OLD.identity)
    await world.until(lambda: 10000 in world.readiness.waiting)
    world.readiness.answer(10000)
    await world.told(intent, "running")
    world.supervisor.delete("r")
    await world.told(intent, "deleted")
    assert adopter.children[OLD.uuid].signals == [("SIGINT", False)]


async def test_a_crash_in_the_middle_of_a_swap_ends_the_old_process_and_keeps_the_new_one(
    make_world: Callable[..., World],
) -> None:
    """The new one was written down as listed; what was to be written about the old one is missing."""
    records = [JournalRecord(OLD, listed=True), JournalRecord(NEW, listed=True, replaces=OLD.uuid)]
    for order in (records, records[::-1]):
        again = make_world()
        found = FakeAdopter(again)
        found.add(OLD)
        found.add(NEW, replaces=OLD.uuid)
        await recover(again, found, *order)
        assert again.supervisor.processes() == {"r": NEW}
        await again.told(OLD, "deleted")
        assert found.children[OLD.uuid].signals[0] == ("SIGHUP", False)
        assert again.supervisor.processes() == {"r": NEW}


async def test_a_replacement_that_had_not_swapped_is_carried_through(
    world: World, adopter: FakeAdopter
) -> None:
    starting = process(1, State.STARTING, Body.ALIVE)
    adopter.add(OLD)
    adopter.add(starting, replaces=OLD.uuid)
    await recover(
        world,
        adopter,
        JournalRecord(OLD, listed=True),
        JournalRecord(starting, listed=False, replaces=OLD.uuid),
    )
    assert world.supervisor.processes() == {"r": OLD}
    await world.until(lambda: 10001 in world.readiness.waiting)
    assert world.readiness.within[10001] == REPLACE_TIMEOUT
    world.readiness.answer(10001)
    await world.told(OLD, "deleted")
    assert world.supervisor.get("r").uuid == starting.uuid


async def test_a_replacement_whose_old_process_was_deleted_is_ended(
    world: World, adopter: FakeAdopter
) -> None:
    adopter.add(NEW, replaces="gone")
    await recover(world, adopter, JournalRecord(NEW, listed=False, replaces="gone"))
    await world.told(NEW, "deleted")
    assert world.supervisor.processes() == {}
    assert world.supervisor.registry.free_ports == 10


async def test_the_shadow_of_a_replaced_process_ends_and_leaves_the_new_one_alone(
    world: World, adopter: FakeAdopter
) -> None:
    shadow = process(0, State.STOPPING, Body.ALIVE, deletion_requested=True)
    adopter.add(shadow)
    adopter.add(NEW, replaces=OLD.uuid)
    await recover(
        world,
        adopter,
        JournalRecord(shadow, listed=False),
        JournalRecord(NEW, listed=True, replaces=OLD.uuid),
    )
    await world.told(shadow, "deleted")
    assert world.supervisor.processes() == {"r": NEW}


async def test_without_a_journal_a_replacement_that_serves_has_the_name(
    world: World, adopter: FakeAdopter
) -> None:
    adopter.add(OLD)
    adopter.add(NEW, replaces=OLD.uuid)
    task = asyncio.ensure_future(recover(world, adopter))
    await world.until(lambda: {10000, 10001} <= set(world.readiness.waiting))
    world.readiness.answer(10000)
    world.readiness.answer(10001)
    await task
    assert world.supervisor.get("r").uuid == NEW.uuid
    await world.told(OLD, "deleted")


async def test_without_a_journal_a_process_older_than_any_start_runs_and_is_not_asked(
    world: World, adopter: FakeAdopter
) -> None:
    adopter.add(OLD, age=READY_TIMEOUT)
    await recover(world, adopter)
    assert world.supervisor.get("r").state is State.RUNNING
    assert world.readiness.within == {}


async def test_without_a_journal_an_old_process_with_another_command_line_is_asked(
    world: World, adopter: FakeAdopter
) -> None:
    """It may be a descendant of one that has ended."""
    adopter.add(OLD, age=READY_TIMEOUT)
    adopter.living[OLD.uuid] = replace(adopter.living[OLD.uuid], command=("myengine",))
    task = asyncio.ensure_future(recover(world, adopter))
    await world.until(lambda: 10000 in world.readiness.waiting)
    world.readiness.answer(10000)
    await task
    assert world.supervisor.get("r").state is State.RUNNING
    assert world.supervisor.get("r").spec == OLD.spec


async def test_without_a_journal_a_replacement_that_is_busy_keeps_the_name_that_it_has_taken(
    world: World, adopter: FakeAdopter
) -> None:
    adopter.add(NEW, replaces="gone")
    task = asyncio.ensure_future(recover(world, adopter))
    await world.until(lambda: 10001 in world.readiness.waiting)
    world.readiness.answer(10001, "busy")
    await task
    assert world.supervisor.get("r").state is State.STARTING
    await world.until(lambda: 10001 in world.readiness.waiting)
    world.readiness.answer(10001)
    await world.told(NEW, "running")
    assert adopter.children[NEW.uuid].signals == []


async def test_without_a_journal_an_old_replacement_is_asked_while_what_it_replaces_lives(
    world: World, adopter: FakeAdopter
) -> None:
    adopter.add(OLD, age=READY_TIMEOUT)
    adopter.add(NEW, replaces=OLD.uuid, age=READY_TIMEOUT)
    task = asyncio.ensure_future(recover(world, adopter))
    await world.until(lambda: 10001 in world.readiness.waiting)
    world.readiness.answer(10001, "failed")
    await task
    assert world.supervisor.get("r").uuid == OLD.uuid


async def test_an_error_about_one_process_does_not_keep_the_others_from_being_taken_over() -> None:
    world = World()
    adopter = FakeAdopter(world)
    other = process(1, State.RUNNING, Body.ALIVE, name="other")
    adopter.add(OLD)
    adopter.add(other)
    task = asyncio.ensure_future(recover(world, adopter))
    await world.until(lambda: {10000, 10001} <= set(world.readiness.waiting))
    with capture_logs() as logs:
        world.readiness.fail(10000, KeyError("odd"))
        world.readiness.answer(10001)
        await task
    assert any(line["event"] == "readiness check failed" for line in logs)
    states = {name: each.state for name, each in world.supervisor.processes().items()}
    assert states == {"r": State.STARTING, "other": State.RUNNING}


async def test_ports_of_another_range_than_before_are_kept_and_not_handed_out(
    world: World, adopter: FakeAdopter
) -> None:
    """The range of the last daemon reached from below this one's into it."""
    old = replace(OLD, ports=PortRange(9995, 10001))
    adopter.add(old)
    await recover(world, adopter, JournalRecord(old, listed=True))
    assert world.supervisor.registry.free_ports == 8
    ports = [world.supervisor.create(spec(f"n{number}", ports=1)).ports for number in range(8)]
    assert ports == [PortRange(10002 + number, 10002 + number) for number in range(8)]
    with pytest.raises(ResourceExhaustedError):
        world.supervisor.create(spec("more", ports=1))
    world.supervisor.delete("r")
    await world.told(old, "deleted")
    assert world.supervisor.create(spec("more", ports=2)).ports == PortRange(10000, 10001)


async def test_an_end_that_the_guard_saw_is_told_once(world: World, adopter: FakeAdopter) -> None:
    assert OLD.identity is not None
    adopter.exits[OLD.identity] = ExitStatus(code=3)
    await recover(world, adopter, JournalRecord(OLD, listed=True))
    await world.told(OLD, "error")
    assert world.supervisor.get("r").error_msg == "exit status 3"
    assert world.states(OLD) == ["error"]


@pytest.mark.parametrize("body", [Body.ALIVE, Body.LEADER_EXITED])
async def test_what_a_process_that_ended_meanwhile_has_left_behind_is_ended(
    world: World, adopter: FakeAdopter, body: Body
) -> None:
    ended = dataclasses.replace(OLD, body=body, state=State.STOPPING, deletion_requested=True)
    assert ended.identity is not None
    order = SpawnRequest(name="r", uuid=ended.uuid, command=(), recovery_metadata="", output=1)
    left = FakeChild(order, ended.identity, lambda _: None, obeys=[], notices=world.notices)
    left.tree.clear()
    adopter.left[ended.uuid] = left
    await recover(world, adopter, JournalRecord(ended, listed=True))
    await world.until(lambda: left.trees_asked == 1)
    assert world.supervisor.get("r").state is State.STOPPING, "it is listed as long as something is left"
    left.tree.set()
    await world.told(OLD, "deleted")


async def test_a_process_with_another_start_time_is_not_the_one(world: World, adopter: FakeAdopter) -> None:
    adopter.add(OLD)
    recycled = adopter.living[OLD.uuid]
    adopter.living[OLD.uuid] = dataclasses.replace(recycled, identity=Identity(100, 2000))
    await recover(world, adopter, JournalRecord(OLD, listed=True))
    await world.told(OLD, "error")
    assert adopter.children == {}


async def test_what_is_taken_over_is_in_the_journal_again(world: World, adopter: FakeAdopter) -> None:
    adopter.add(OLD)
    await recover(world, adopter, JournalRecord(OLD, listed=True))
    assert list(world.journal.records.values()) == world.supervisor.records()


INTENT = replace(OLD, state=State.STARTING, body=Body.ABSENT, identity=None)
SOMEBODY = Unclear(Identity(77, 7), "its environment cannot be seen now")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "_FIRST_LOOK", 0)
    monkeypatch.setattr(adoption, "_LONGEST_WAIT", 0.001)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("lives", [True, False])
async def test_an_intent_is_kept_while_a_process_that_cannot_be_read_may_be_it(
    world: World, adopter: FakeAdopter, lives: bool
) -> None:
    adopter.unclear = [SOMEBODY]
    await recover(world, adopter, JournalRecord(INTENT, listed=True))
    kept = world.supervisor.get("r")
    assert (kept.state, kept.body) == (State.STARTING, Body.ABSENT)
    assert "it may be pid 77" in kept.error_msg
    assert "name and ports are kept" in kept.error_msg
    assert world.supervisor.registry.free_ports == 9
    looks = adopter.looks
    await world.until(lambda: adopter.looks > looks + 2)
    assert world.supervisor.get("r").body is Body.ABSENT
    if lives:
        adopter.add(OLD)
        adopter.unclear = []
        await world.until(lambda: world.supervisor.get("r").body is Body.ALIVE)
        assert world.supervisor.get("r").identity == OLD.identity
        assert world.supervisor.get("r").error_msg == ""
    else:
        adopter.unclear = []
        await world.told(OLD, "error")
        assert world.supervisor.get("r").error_msg == NEVER_SPAWNED


@pytest.mark.usefixtures("soon")
async def test_a_process_that_is_clear_only_later_is_recovered_then(
    world: World, adopter: FakeAdopter
) -> None:
    adopter.unclear = [SOMEBODY]
    world.supervisor.changed.observe(lambda _: world.notices.post())
    await recover(world, adopter)
    assert world.supervisor.processes() == {}
    adopter.add(OLD, age=READY_TIMEOUT)
    adopter.unclear = []
    await world.until(lambda: "r" in world.supervisor.processes())
    assert world.supervisor.get("r").identity == OLD.identity


@pytest.mark.usefixtures("soon")
async def test_processes_that_stay_unclear_are_told_once(world: World, adopter: FakeAdopter) -> None:
    async def look_often() -> None:
        looks = adopter.looks
        await world.until(lambda: adopter.looks > looks + 3)

    world.supervisor.changed.observe(lambda _: world.notices.post())
    adopter.unclear = [SOMEBODY]
    with capture_logs() as logs:
        await recover(world, adopter)
        await look_often()
        another = Unclear(Identity(78, 8), "refused")
        adopter.unclear = [SOMEBODY, another]
        await look_often()
    told = [line["pids"] for line in logs if line["event"].startswith("cannot tell whether some processes")]
    assert told == [[77], [77, 78]]


async def test_a_process_in_the_journal_makes_no_other_unclear(world: World, adopter: FakeAdopter) -> None:
    assert NEW.identity is not None
    adopter.add(NEW)
    adopter.unclear = [Unclear(NEW.identity, "refused")]
    other = replace(INTENT, spec=replace(INTENT.spec, name="other"))
    await recover(world, adopter, JournalRecord(NEW, listed=True), JournalRecord(other, listed=True))
    assert world.supervisor.get("other").error_msg == NEVER_SPAWNED
    assert world.supervisor.get("r").state is State.RUNNING


async def test_a_doubt_is_told_and_taken_back(world: World, adopter: FakeAdopter) -> None:
    adopter.add(OLD)
    await recover(world, adopter, JournalRecord(OLD, listed=True))
    adopter.on_doubt("Too many open files")
    assert world.supervisor.get("r").state is State.RUNNING
    assert "Too many open files" in world.supervisor.get("r").error_msg
    adopter.on_doubt("")
    assert world.supervisor.get("r").error_msg == ""


async def test_a_doubt_of_an_earlier_daemon_is_not_this_ones(world: World, adopter: FakeAdopter) -> None:
    adopter.add(OLD)
    await recover(world, adopter, JournalRecord(replace(OLD, doubt="no descriptor"), listed=True))
    assert world.supervisor.get("r").error_msg == ""
