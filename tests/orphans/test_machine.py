"""Hypothesis against the reconciler: reads that fail or come late, news out of order, crashes, and time.

Whatever happens, no instance is declared an orphan or deleted that never was one; and once everything can be
read again, every orphan has its record, or is gone where auto-deletion is on.
"""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from instance_manager.core.process import State
from instance_manager.orphans.actions import (
    Delete,
    Failed,
    ListInstances,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    Remove,
    Work,
    Write,
)
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner
from instance_manager.orphans.reconciler import Reconciler
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
        self.settings = OrphanSettings(wait=1.0, retry=5.0, auto_deletion=auto_deletion, grace=20.0)
        self.lives = [Life() for _ in SCRIPTS]
        self.owners: list[list[Owner | None]] = [[None] for _ in SCRIPTS]
        self.instances: list[list[ObservedInstance | None]] = [[None] for _ in SCRIPTS]
        self.true_orphans: set[str] = set()
        self.records: dict[str, Orphan] = {}
        self.sent: list[Work] = []
        self.answered: list[tuple[Work, Hashable]] = []
        self._new_agent()
        for number, steps in enumerate(begun):
            self.the_world_moves_on(number, [0] * (steps + 1), told=True)

    def _new_agent(self) -> None:
        self.agent = Reconciler(self.settings, [MANAGER])
        self.agent.start(self.now)
        self.sent, self.answered = [], []
        for work in self.agent.take(self.now):
            self.agent.told(work, self._serve(work), self.now)
        self.agent.owners_listed(_there(self.owners, BYSTANDER), self.now)
        self.agent.instances_listed(MANAGER, _there(self.instances), self.now)

    # --- the world ---

    def _change(self, number: int, life: Life) -> None:
        script = SCRIPTS[number]
        self.lives[number] = life
        self.owners[number].append(owner_of(life, script))
        self.instances[number].append(instance_of(life, script))
        instance = self.instances[number][-1]
        if instance and is_orphan(life, instance.uuid, script):
            self.true_orphans.add(instance.uuid)

    @rule(number=numbers, pick_each=st.lists(picks, min_size=1, max_size=5), told=st.booleans())
    def the_world_moves_on(self, number: int, pick_each: list[int], told: bool) -> None:
        for pick in pick_each:
            possible = list(moves(self.lives[number], SCRIPTS[number]))
            if possible:
                self._change(number, possible[pick % len(possible)][1])
            if told:
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
        self.agent.owner_changed(SCRIPTS[number].name, seen, self.now)

    @rule(number=numbers, pick=picks)
    def news_of_an_instance(self, number: int, pick: int) -> None:
        history = self.instances[number]
        self.agent.instance_changed(MANAGER, SCRIPTS[number].name, history[pick % len(history)], self.now)

    @rule(picked=st.tuples(*(picks for _ in SCRIPTS)), bystander=st.booleans())
    def owners_are_listed_out_of_a_cache(self, picked: tuple[int, ...], bystander: bool) -> None:
        told = [history[pick % len(history)] for history, pick in zip(self.owners, picked, strict=True)]
        self.agent.owners_listed([o for o in (*told, BYSTANDER if bystander else None) if o], self.now)

    @rule(picked=st.tuples(*(picks for _ in SCRIPTS)))
    def instances_are_listed_out_of_a_cache(self, picked: tuple[int, ...]) -> None:
        told = [history[pick % len(history)] for history, pick in zip(self.instances, picked, strict=True)]
        self.agent.instances_listed(MANAGER, [i for i in told if i], self.now)

    @rule(owners=st.booleans())
    def a_source_is_lost(self, owners: bool) -> None:
        if owners:
            self.agent.owners_lost("cut off", self.now)
        else:
            self.agent.manager_lost(MANAGER, "cut off", self.now)

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
        for work in self.agent.take(self.now):
            self.sent.append(work)
            if isinstance(work, Write) and work.declares:
                assert work.record.instance.uuid in self.true_orphans, work
            if isinstance(work, Delete):
                assert work.seen.uuid in self.true_orphans, work

    @rule(turns=st.integers(1, 12), pause=st.sampled_from([0.0, 0.5, 10.0]))
    def the_agent_works_on(self, turns: int, pause: float) -> None:
        for _ in range(turns):
            self.now += pause
            self.the_agent_takes_what_is_due()
            if self.sent:
                self.a_server_answers(0, fails=False)
            if self.answered:
                self.an_answer_arrives(0)

    @rule(pick=picks, fails=st.booleans())
    @precondition(lambda self: self.sent)
    def a_server_answers(self, pick: int, fails: bool) -> None:
        work = self.sent.pop(pick % len(self.sent))
        self.answered.append((work, Failed("no answer") if fails else self._serve(work)))

    @rule(pick=picks)
    @precondition(lambda self: self.answered)
    def an_answer_is_lost_after_the_deed(self, pick: int) -> None:
        position = pick % len(self.answered)
        work, _ = self.answered[position]
        self.answered[position] = work, Failed("no answer")

    @rule(pick=picks)
    @precondition(lambda self: self.answered)
    def an_answer_arrives(self, pick: int) -> None:
        work, answer = self.answered.pop(pick % len(self.answered))
        self.agent.told(work, answer, self.now)

    def _serve(self, work: Work) -> Hashable:
        match work:
            case ReadOwner():
                return self.owners[NAMES[work.name]][-1]
            case ListOwners():
                return (BYSTANDER, *(history[-1] for history in self.owners if history[-1]))
            case ReadInstance():
                return self.instances[NAMES[work.seen.name]][-1]
            case ListInstances():
                return tuple(history[-1] for history in self.instances if history[-1])
            case ListRecords():
                return tuple(self.records.values())
            case Write():
                known = self.records.get(work.case, work.record)
                self.records[work.case] = _asked(work.record, known.requested_by, known.requested_at)
            case Remove():
                self.records.pop(work.case, None)
            case Delete():
                return self._delete(work)
        return None

    def _delete(self, work: Delete) -> bool:
        number = NAMES[work.seen.name]
        instance = self.instances[number][-1]
        if instance is None or instance.uuid != work.seen.uuid:
            return False
        assert instance.uuid in self.true_orphans
        self._change(number, self.lives[number]._replace(process=State.STOPPING, asked=True))
        return True

    # --- what has to hold ---

    @invariant()
    def a_case_that_waits_has_a_time(self) -> None:
        for case in self.agent.cases.open.values():
            assert case.busy or case.due < self.now + 1000

    def teardown(self) -> None:
        if not hasattr(self, "agent"):
            return
        for _ in range(300):
            self.now += 5.0
            for number, life in enumerate(self.lives):
                if life.process in {State.STOPPING, "error-deleting"}:
                    self._change(number, life._replace(process="gone"))
            self.agent.resync(self.now)
            self.the_agent_takes_what_is_due()
            self.answered += [(work, self._serve(work)) for work in self.sent]
            self.sent = []
            while self.answered:
                self.agent.told(*self.answered.pop(0), self.now)
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
