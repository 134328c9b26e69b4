"""Supervisor and Replacer under any sequence of requests and events, in a world of fakes.

Each rule takes place in one turn of the event loop, alone or together with the next one; then the loop runs
until nothing is under way. A process that is not ended by a rule cannot be killed: time may pass by it.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

from instance_manager.api.instance_wire import instance_to_wire, serialize_entry, serialize_one
from instance_manager.api.process_service import ProcessService
from instance_manager.api.serialized import SerializedList, SerializedProcesses
from instance_manager.api.wire import process_to_wire
from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.core.conditions import volume_key
from instance_manager.core.errors import InstanceManagerError, ResourceExhaustedError
from instance_manager.core.process import Body, ExitStatus, Process
from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse, ProcessStatus
from instance_manager.pb.imrpc.instance_pb2 import InstanceListResponse, InstanceResponse
from tests.support.fakes import FakeChild
from tests.support.world import World, spec

pytestmark = pytest.mark.timeout(300)
"""Tens of thousands of steps take a while on a busy machine."""

PORTS = 10
TURNS = 12  # of the event loop: the longest chain of callbacks takes fewer

NEXT = {
    "starting": {"running", "stopping", "stopped", "error"},
    "running": {"stopping", "stopped", "error"},
    "stopping": {"stopped", "error"},
    "stopped": {"deleted"},
    "error": {"deleted"},
    "deleted": set[str](),
}
ALL_NAMES = ("a", "b", "vol-e-0")
NAMES = st.sampled_from(ALL_NAMES)
BINARIES = st.sampled_from(["/bin/r", "/bin/s", "/bin/t"])
COUNTS = st.sampled_from([0, 1, 1, 2, 4])
STATUSES = st.sampled_from([ExitStatus(), ExitStatus(code=1), ExitStatus(signal="SIGKILL")])
WHICH = st.integers(0, 9)
TROUBLES = st.sampled_from([None] * 6 + [CannotExecuteError("no file"), ResourceExhaustedError("no PIDs")])
TOGETHER = st.sampled_from([False, False, True])


class WatcherByName:
    """The context of a ProcessWatch whose client goes by names alone."""

    def __init__(self) -> None:
        self.known: dict[str, ProcessStatus] = {}

    async def send_initial_metadata(self, _: object) -> None:
        """Take the headers."""

    async def write(self, message: bytes) -> None:
        change = ProcessResponse.FromString(message)
        self.known[change.spec.name] = change.status
        if change.deleted:
            del self.known[change.spec.name]


class SupervisionMachine(RuleBasedStateMachine):
    """Asks, lets things happen, and holds what can be seen against the processes there really are."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.unheard: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unheard.append(context))
        self.stack = ExitStack()
        self.logged = self.stack.enter_context(capture_logs())
        self.world = World(ports=PORTS)
        self.supervisor = self.world.supervisor
        self.served = SerializedList(self.supervisor, serialize_entry)
        self.single = SerializedProcesses(self.supervisor, serialize_one)
        self.together: list[Callable[[], object]] = []
        self.answers: list[asyncio.Task[Process]] = []
        self.endings: list[asyncio.Task[list[Process]]] = []
        self.by_name = WatcherByName()
        service = ProcessService(self.supervisor, self.world.replacer)
        self.watching = self.loop.create_task(service.watch(None, self.by_name))  # type: ignore[arg-type]
        self.perform(lambda: None)

    def perform(self, action: Callable[[], object], *, together: bool = False) -> None:
        """Do something in a turn of the loop, or keep it for the turn of the next one."""
        self.together.append(action)
        if not together:
            actions, self.together = self.together, []
            self.loop.run_until_complete(_in_one_turn(actions))

    def of(self, children: list[FakeChild], which: int) -> FakeChild | None:
        return children[which % len(children)] if children else None

    @property
    def alive(self) -> list[FakeChild]:
        return [child for child in self.world.spawner.children if not child.ended]

    @property
    def signalled(self) -> list[FakeChild]:
        return [child for child in self.alive if child.signals]

    # --- requests ---

    @initialize(ports=st.tuples(COUNTS, COUNTS, COUNTS), ready=st.booleans())
    def some_run_already(self, ports: tuple[int, int, int], ready: bool) -> None:
        for name, count in zip(ALL_NAMES, ports, strict=True):
            with suppress(ResourceExhaustedError):
                self.perform(partial(self.supervisor.create, spec(name, ports=count)))
        for port in tuple(self.world.readiness.waiting) if ready else ():
            self.perform(partial(self.world.readiness.answer, port))

    @rule(name=NAMES, ports=COUNTS, binary=BINARIES, trouble=TROUBLES, together=TOGETHER)
    def create(self, name: str, ports: int, binary: str, trouble: Exception | None, together: bool) -> None:
        def action() -> None:
            self.world.spawner.failures.extend([trouble] if trouble else [])
            with suppress(InstanceManagerError):
                created = self.supervisor.create(spec(name, ports=ports, binary=binary))
                assert self.supervisor.get(name) == created
            self.world.spawner.failures.clear()

        self.perform(action, together=together)

    @rule(name=NAMES, right=st.sampled_from([True, True, False]), together=TOGETHER)
    def delete(self, name: str, right: bool, together: bool) -> None:
        def action() -> None:
            with suppress(InstanceManagerError):
                assert self.supervisor.delete(name, "" if right else "other").deletion_requested
                assert right

        self.perform(action, together=together)

    @rule(name=NAMES, ports=COUNTS, binary=BINARIES, trouble=TROUBLES, together=TOGETHER)
    def replace(self, name: str, ports: int, binary: str, trouble: Exception | None, together: bool) -> None:
        async def replacing() -> Process:
            self.world.spawner.failures.extend([trouble] if trouble else [])
            coming = self.world.replacer.replace(spec(name, ports=ports, binary=binary), "SIGHUP")
            self.loop.call_soon(self.world.spawner.failures.clear)
            return await coming

        self.perform(lambda: self.answers.append(self.loop.create_task(replacing())), together=together)

    @precondition(lambda self: len(self.world.spawner.children) > 6)
    @rule(grace=st.sampled_from([None, None, 2.0, 30.0]), together=TOGETHER)
    def shut_down(self, grace: float | None, together: bool) -> None:
        def action() -> None:
            if grace is not None and not self.endings:
                self.endings.append(self.loop.create_task(self.world.supervisor.shutdown(grace)))
            elif self.endings:
                self.world.supervisor.force_shutdown()

        self.perform(action, together=together)

    @precondition(lambda self: not all(task.done() for task in self.answers))
    @rule(which=WHICH, together=TOGETHER)
    def a_caller_goes_away(self, which: int, together: bool) -> None:
        def action() -> None:
            if self.answers:
                self.answers[which % len(self.answers)].cancel()

        self.perform(action, together=together)

    # --- events ---

    @precondition(lambda self: self.world.readiness.waiting)
    @rule(which=WHICH, reason=st.sampled_from([None, None, None, "nothing listens"]), together=TOGETHER)
    def an_answer_comes(self, which: int, reason: str | None, together: bool) -> None:
        def action() -> None:
            if waiting := sorted(self.world.readiness.waiting):
                self.world.readiness.answer(waiting[which % len(waiting)], reason)

        self.perform(action, together=together)

    @precondition(lambda self: self.alive)
    @rule(which=WHICH, status=STATUSES, remains=st.integers(0, 2), together=TOGETHER)
    def a_process_ends(self, which: int, status: ExitStatus, remains: int, together: bool) -> None:
        def action() -> None:
            if child := self.of(self.alive, which):
                child.remains.extend(["pid 8 lives on"] * remains)
                child.exit(status)

        self.perform(action, together=together)

    @precondition(lambda self: self.signalled)
    @rule(which=WHICH, together=TOGETHER)
    def a_process_obeys(self, which: int, together: bool) -> None:
        def action() -> None:
            if child := self.of(self.signalled, which):
                child.exit(ExitStatus(signal=child.signals[-1][0]))

        self.perform(action, together=together)

    @precondition(lambda self: self.world.clock.timers)
    @rule(seconds=st.sampled_from([0.0, 0.0, 1.0, 5.0, 65.0]), together=TOGETHER)
    def time_passes(self, seconds: float, together: bool) -> None:
        self.perform(lambda: self.world.clock.advance(seconds), together=together)

    @rule(read_only=st.booleans(), together=TOGETHER)
    def mounts_change(self, read_only: bool, together: bool) -> None:
        volumes = frozenset({volume_key("vol")} if read_only else ())
        self.perform(lambda: self.supervisor.observe_mounts(volumes), together=together)

    # --- what holds all along ---

    @invariant()
    def nothing_failed_without_a_word(self) -> None:
        assert self.unheard == []
        assert [line for line in self.logged if line["log_level"] == "error"] == []
        for task in (task for task in self.answers if task.done() and not task.cancelled()):
            assert task.exception() is None or isinstance(task.exception(), InstanceManagerError)

    @invariant()
    def nothing_lives_that_the_supervisor_does_not_know(self) -> None:
        left = {process.uuid: process for process in self.supervisor.remaining}
        for child in self.world.spawner.children:
            body = left[child.order.uuid].body if child.order.uuid in left else Body.GONE
            there_is = Body.GONE if child.gone else Body.LEADER_EXITED if child.ended else Body.ALIVE
            assert body is there_is

    @invariant()
    def no_port_is_free_or_used_twice_before_its_process_is_gone(self) -> None:
        in_use = Counter(
            int(word)
            for child in self.world.spawner.children
            if not child.gone
            for word in child.order.command[1:]
        )
        held = Counter[int]()
        for process in self.supervisor.remaining:
            if process.ports is not None:
                held.update(range(process.ports.start, process.ports.end + 1))
        assert all(count == 1 for count in (in_use | held).values())
        assert in_use <= held
        assert all(10000 <= port < 10000 + PORTS for port in held)
        assert self.supervisor.registry.free_ports == PORTS - held.total()

    @invariant()
    def the_listing_has_each_name_and_each_uuid_once(self) -> None:
        listing = self.supervisor.processes()
        assert all(process.name == name for name, process in listing.items())
        uuids = [process.uuid for process in listing.values()]
        assert len(uuids) == len(set(uuids))
        assert set(uuids) <= {process.uuid for process in self.supervisor.remaining}

    @invariant()
    def the_list_that_is_served_is_the_listing(self) -> None:
        served = InstanceListResponse.FromString(self.served.get())
        listing = self.supervisor.processes().items()
        told = {name: instance_to_wire(each, deleted=each.deleting) for name, each in listing}
        assert dict(served.instances) == told
        for name, instance in served.instances.items():
            assert InstanceResponse.FromString(self.single.get(name)) == instance

    @invariant()
    def the_states_told_are_legal_paths_that_end_in_one_deleted(self) -> None:
        left = {process.uuid: process for process in self.supervisor.remaining}
        told = {change.process.uuid for change in self.world.events.changes}
        assert set(left) <= told
        for uuid in told:
            path = self.world.events.states(uuid)
            assert path[0] == "starting"
            assert all(after in NEXT[before] for before, after in itertools.pairwise(path)), path
            assert (path[-1] == "deleted") == (uuid not in left)
        deleted = Counter(change.process.uuid for change in self.world.events.changes if change.deleted)
        assert set(deleted.values()) <= {1}

    @invariant()
    def what_is_told_last_is_how_it_is(self) -> None:
        last = {change.process.uuid: change.process for change in self.world.events.changes}
        for process in self.supervisor.remaining:
            assert _visible(last[process.uuid]) == _visible(process)

    @invariant()
    def who_watches_by_name_knows_the_listing(self) -> None:
        listing = self.supervisor.processes().items()
        assert self.by_name.known == {name: process_to_wire(each).status for name, each in listing}

    @invariant()
    def who_is_to_end_was_signalled_and_has_a_timer(self) -> None:
        alive = [process for process in self.supervisor.remaining if process.body is Body.ALIVE]
        ending = [process for process in alive if process.state in {"stopping", "error"}]
        assert all(self.world.child(process).signals for process in ending)
        assert len(self.world.clock.timers) >= len(ending)

    @invariant()
    def the_journal_holds_what_there_is_and_nothing_else(self) -> None:
        held = {record.process.uuid: record for record in self.supervisor.records()}
        assert self.world.journal.records == held
        assert self.world.journal.changes == self.world.events.changes

    def teardown(self) -> None:
        """Delete everything and let it end: then nothing may be left anywhere."""
        try:
            self.perform(lambda: None)
            self.end_everything()
        finally:
            self.stack.close()
            self.loop.close()

    def end_everything(self) -> None:
        for _ in range(2):  # replacements that are under way may swap once more
            for port in tuple(self.world.readiness.waiting):
                self.perform(partial(self.world.readiness.answer, port))
            self.perform(self.world.clock.advance)
        for name in self.supervisor.processes():
            self.perform(partial(self.supervisor.delete, name))
        for child in self.alive:
            self.perform(child.exit)
        for _ in range(40):
            self.perform(lambda: self.world.clock.advance(1))
        self.nothing_failed_without_a_word()
        self.the_states_told_are_legal_paths_that_end_in_one_deleted()
        assert (self.supervisor.processes(), self.supervisor.remaining) == ({}, [])
        assert self.supervisor.registry.free_ports == PORTS
        assert all(task.done() for task in (*self.answers, *self.endings))
        assert self.world.clock.timers == set()
        assert self.world.readiness.waiting == {}
        assert self.world.logs.writers.total() == 0
        self.perform(self.world.events.close)
        assert self.watching.done()
        assert asyncio.all_tasks(self.loop) == set()


def _visible(process: Process) -> tuple[object, ...]:
    return process.state, process.error_msg, process.conditions


async def _in_one_turn(actions: list[Callable[[], object]]) -> None:
    for action in actions:
        action()
    for _ in range(TURNS):
        await asyncio.sleep(0)


TestSupervision = SupervisionMachine.TestCase
TestSupervision.settings = settings(max_examples=3 * settings().max_examples)
