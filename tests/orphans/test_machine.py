"""Hypothesis against the reconciler: reads that fail or come late, news out of order, crashes, and time.

Whatever happens, no instance is declared an orphan or deleted that never was one; and once everything can be
read again, every orphan has its record, or is gone where auto-deletion is on.
"""

from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from instance_manager.core.process import State
from instance_manager.orphans.actions import (
    Action,
    CloseRecord,
    ConfirmNoOwner,
    DeleteInstance,
    ListInstances,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    WriteRecord,
)
from instance_manager.orphans.events import (
    Event,
    InstanceChanged,
    InstanceManagerLost,
    InstancesListed,
    OwnerChanged,
    OwnersListed,
    OwnersLost,
)
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.results import (
    ActionFailed,
    InstanceDeleted,
    InstanceRead,
    InstancesRead,
    OwnerRead,
    OwnersRead,
    RecordsRead,
    RecordWritten,
    Result,
)
from instance_manager.orphans.settings import OrphanSettings
from tests.orphans.explorer.world import (
    BYSTANDER,
    MANAGER,
    Life,
    Script,
    instance_of,
    is_orphan,
    moves,
    owner_of,
)

Value = TypeVar("Value")

SCRIPTS = (
    Script("a", fails=True, status=True, reused=True),
    Script("b", abandoned=True, fails=True),
    Script("c", abandoned=True, status=True),
    Script("d", reused=True),
)
NAMES = {script.name: number for number, script in enumerate(SCRIPTS)}
numbers = st.integers(0, len(SCRIPTS) - 1)
picks = st.integers(0, 1000)


class OrphanMachine(RuleBasedStateMachine):
    @initialize(auto_deletion=st.booleans(), begun=st.tuples(*(st.integers(0, 4) for _ in SCRIPTS)))
    def begin(self, auto_deletion: bool, begun: tuple[int, ...]) -> None:
        self.now = 1000.0
        self.settings = OrphanSettings(confirm_delay=1.0, retry=5.0, auto_deletion=auto_deletion, grace=20.0)
        self.lives = [Life() for _ in SCRIPTS]
        self.owners: list[list[Owner | None]] = [[None] for _ in SCRIPTS]
        self.instances: list[list[ObservedInstance | None]] = [[None] for _ in SCRIPTS]
        self.true_orphans: set[str] = set()
        self.records: dict[str, Orphan] = {}
        self.sent: list[Action] = []
        self.results: list[Result] = []
        self._new_agent()
        for number, steps in enumerate(begun):
            self.the_world_moves_on(number, [0] * (steps + 1), notified=True)

    def _new_agent(self) -> None:
        self.agent = Reconciler(self.settings, [MANAGER])
        self.agent.start(self.now)
        self.sent, self.results = [], []
        for action in self.agent.next_actions(self.now):
            self.agent.on_result(self._serve(action), self.now)
        self._list_everything()

    def _event(self, event: Event) -> None:
        self.agent.on_event(event, self.now)

    def _list_everything(self) -> None:
        self._event(OwnersListed(_there(self.owners, BYSTANDER)))
        self._event(InstancesListed(MANAGER, _there(self.instances)))

    # --- the world ---

    def _change(self, number: int, life: Life) -> None:
        script = SCRIPTS[number]
        self.lives[number] = life
        self.owners[number].append(owner_of(life, script))
        self.instances[number].append(instance_of(life, script))
        instance = self.instances[number][-1]
        if instance and is_orphan(life, instance.uuid, script):
            self.true_orphans.add(instance.uuid)

    @rule(number=numbers, pick_each=st.lists(picks, min_size=1, max_size=5), notified=st.booleans())
    def the_world_moves_on(self, number: int, pick_each: list[int], notified: bool) -> None:
        for pick in pick_each:
            possible = list(moves(self.lives[number], SCRIPTS[number]))
            if possible:
                self._change(number, possible[pick % len(possible)][1])
            if notified:
                self.news_of_an_owner(number, -1)
                self.news_of_an_instance(number, -1)

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 60.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # --- news ---

    @rule(number=numbers, pick=picks)
    def news_of_an_owner(self, number: int, pick: int) -> None:
        history = self.owners[number]
        seen = history[pick % len(history)]
        self._event(OwnerChanged(SCRIPTS[number].name, seen))

    @rule(number=numbers, pick=picks)
    def news_of_an_instance(self, number: int, pick: int) -> None:
        history = self.instances[number]
        self._event(InstanceChanged(MANAGER, SCRIPTS[number].name, history[pick % len(history)]))

    @rule(picked=st.tuples(*(picks for _ in SCRIPTS)), bystander=st.booleans())
    def owners_are_listed_out_of_a_cache(self, picked: tuple[int, ...], bystander: bool) -> None:
        old = [history[pick % len(history)] for history, pick in zip(self.owners, picked, strict=True)]
        self._event(OwnersListed([o for o in (*old, BYSTANDER if bystander else None) if o]))

    @rule(picked=st.tuples(*(picks for _ in SCRIPTS)))
    def instances_are_listed_out_of_a_cache(self, picked: tuple[int, ...]) -> None:
        old = [history[pick % len(history)] for history, pick in zip(self.instances, picked, strict=True)]
        self._event(InstancesListed(MANAGER, [i for i in old if i]))

    @rule(owners=st.booleans())
    def a_source_is_lost(self, owners: bool) -> None:
        self._event(OwnersLost("cut off") if owners else InstanceManagerLost(MANAGER, "cut off"))

    @rule(pick=picks)
    @precondition(lambda self: self.records)
    def a_person_orders_a_deletion(self, pick: int) -> None:
        name = sorted(self.records)[pick % len(self.records)]
        asked = self.records[name]
        self.records[name] = _asked(asked, "alice", self.now)

    @rule()
    def the_agent_crashes(self) -> None:
        self._new_agent()

    # --- work ---

    @rule()
    def the_agent_takes_what_is_due(self) -> None:
        for action in self.agent.next_actions(self.now):
            self.sent.append(action)
            if isinstance(action, WriteRecord) and action.declares:
                assert action.record.instance.uuid in self.true_orphans, action
            if isinstance(action, DeleteInstance):
                assert action.record.instance.uuid in self.true_orphans, action

    @rule(turns=st.integers(1, 12), pause=st.sampled_from([0.0, 0.5, 10.0]))
    def the_agent_works_on(self, turns: int, pause: float) -> None:
        for _ in range(turns):
            self.now += pause
            self.the_agent_takes_what_is_due()
            if self.sent:
                self.a_server_answers(0, fails=False)
            if self.results:
                self.an_answer_arrives(0)

    @rule(pick=picks, fails=st.booleans())
    @precondition(lambda self: self.sent)
    def a_server_answers(self, pick: int, fails: bool) -> None:
        action = self.sent.pop(pick % len(self.sent))
        self.results.append(ActionFailed(action, "no answer") if fails else self._serve(action))

    @rule(pick=picks)
    @precondition(lambda self: self.results)
    def an_answer_is_lost_after_the_deed(self, pick: int) -> None:
        position = pick % len(self.results)
        self.results[position] = ActionFailed(self.results[position].action, "no answer")

    @rule(pick=picks)
    @precondition(lambda self: self.results)
    def an_answer_arrives(self, pick: int) -> None:
        self.agent.on_result(self.results.pop(pick % len(self.results)), self.now)

    def _serve(self, action: Action) -> Result:
        match action:
            case ReadOwner(_, seen):
                return OwnerRead(action, self.owners[NAMES[seen.name]][-1])
            case ListOwners() | ConfirmNoOwner():
                return OwnersRead(action, _there(self.owners, BYSTANDER))
            case ReadInstance(_, seen):
                return InstanceRead(action, self.instances[NAMES[seen.name]][-1])
            case ListInstances():
                return InstancesRead(action, _there(self.instances))
            case ListRecords():
                return RecordsRead(action, tuple(self.records.values()))
            case WriteRecord(record):
                known = self.records.get(record.name, record)
                self.records[record.name] = _asked(record, known.requested_by, known.requested_at)
                return RecordWritten(action)
            case CloseRecord(record):
                self.records.pop(record.name, None)
                return RecordWritten(action)
            case DeleteInstance(record):
                return InstanceDeleted(action, self._delete(record.instance))

    def _delete(self, seen: ObservedInstance) -> bool:
        number = NAMES[seen.name]
        instance = self.instances[number][-1]
        if instance is None or instance.uuid != seen.uuid:
            return False
        assert instance.uuid in self.true_orphans
        self._change(number, self.lives[number]._replace(process=State.STOPPING, asked=True))
        return True

    # --- what has to hold ---

    @invariant()
    def a_case_that_waits_has_a_time(self) -> None:
        for candidate in self.agent.candidates.open.values():
            assert candidate.in_flight or candidate.due < self.now + 1000

    def teardown(self) -> None:
        if not hasattr(self, "agent"):
            return
        for _ in range(300):
            self.now += 5.0
            for number, life in enumerate(self.lives):
                if life.process in {State.STOPPING, "error-deleting"}:
                    self._change(number, life._replace(process="gone"))
            self._list_everything()
            self.the_agent_takes_what_is_due()
            self.results += map(self._serve, self.sent)
            self.sent = []
            while self.results:
                self.agent.on_result(self.results.pop(0), self.now)
        running = {i.uuid for history in self.instances if (i := history[-1]) and i.settled}
        left = running & self.true_orphans
        assert {record.instance.uuid for record in self.records.values()} == left
        if self.settings.auto_deletion:
            assert not left


def _there(histories: list[list[Value | None]], *more: Value) -> list[Value]:
    """Return what is there now."""
    return [*more, *(history[-1] for history in histories if history[-1] is not None)]


def _asked(record: Orphan, who: str, when: float) -> Orphan:
    return replace(record, requested_by=who, requested_at=when)


TestOrphanMachine: Any = OrphanMachine.TestCase
