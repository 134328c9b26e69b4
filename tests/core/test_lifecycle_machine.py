"""A process under any sequence of events, possible or not, against what must hold all along."""

import copy
import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from instance_manager.core.actions import Action, KillTree, Remove, Signal, StartTimer, Timer
from instance_manager.core.events import (
    ConditionObserved,
    Event,
    Exited,
    NotReady,
    Ready,
    Spawned,
    SpawnFailed,
    StopRequested,
    StopTimedOut,
    TreeGone,
    TreeRemains,
)
from instance_manager.core.lifecycle import IllegalTransitionError, begin, step
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec

WORDS = st.sampled_from(["this", "that"])
STATUSES = st.builds(ExitStatus, code=st.integers(0, 3)) | st.builds(
    ExitStatus, signal=st.sampled_from(["SIGKILL", "SIGSEGV"])
)
EVENTS: dict[type[Event], st.SearchStrategy[Event]] = {
    Spawned: st.builds(Spawned, st.builds(Identity, st.integers(2, 9), st.integers(0, 9))),
    SpawnFailed: st.builds(SpawnFailed, WORDS),
    Ready: st.builds(Ready),
    NotReady: st.builds(NotReady, WORDS),
    StopRequested: st.builds(StopRequested, st.sampled_from(["SIGINT", "SIGHUP"])),
    Exited: st.builds(Exited, STATUSES),
    StopTimedOut: st.builds(StopTimedOut, WORDS),
    TreeGone: st.builds(TreeGone),
    TreeRemains: st.builds(TreeRemains, WORDS),
    ConditionObserved: st.builds(ConditionObserved, WORDS, st.booleans()),
}
ANY_EVENT = st.one_of(*EVENTS.values())

NEXT = {
    State.STARTING: {State.RUNNING, State.STOPPING, State.STOPPED, State.ERROR},
    State.RUNNING: {State.STOPPING, State.STOPPED, State.ERROR},
    State.STOPPING: {State.STOPPED, State.ERROR},
    State.STOPPED: set(),
    State.ERROR: set(),
}


def possible(process: Process) -> set[type[Event]]:
    """Return the events that can happen, told from the state and what exists on the machine."""
    always: set[type[Event]] = {StopRequested, ConditionObserved}
    if process.deletion_requested and process.body is Body.GONE:
        return {StopRequested}  # forgotten: the supervisor observes it no longer
    match process.body:
        case Body.ABSENT:
            return always | {Spawned, SpawnFailed}
        case Body.ALIVE if process.state is State.STARTING:
            return always | {Ready, NotReady, Exited}
        case Body.ALIVE if process.state is State.RUNNING:
            return always | {Exited}
        case Body.ALIVE:
            return always | {Exited, StopTimedOut}
        case Body.LEADER_EXITED:
            return always | {TreeGone, TreeRemains}
    return always


class LifecycleMachine(RuleBasedStateMachine):
    """Gives events to `step`, as the supervisor does, and remembers what it was told to do."""

    @initialize(ports=st.none() | st.just(PortRange(10000, 10002)))
    def begin(self, ports: PortRange | None) -> None:
        self.process, actions = begin(ProcessSpec(name="p", binary="/bin/p"), "u", ports)
        self.published = [self.process]
        self.forgotten = 0
        self.stopped_by_request = False
        self.signals: list[str] = []
        self.armed: Timer | None = None
        self.run(actions)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        kinds = sorted(possible(self.process), key=lambda kind: kind.__name__)
        self.happen(data.draw(st.one_of(*(EVENTS[kind] for kind in kinds)), "event"))

    @precondition(lambda self: self.process.body not in {Body.GONE, Body.ABSENT})
    @rule(data=st.data())
    def the_end_comes_nearer(self, data: st.DataObject) -> None:
        kinds: set[type[Event]] = {Exited, StopTimedOut, TreeGone, TreeRemains}
        near = sorted(kinds & possible(self.process), key=lambda kind: kind.__name__)
        self.happen(data.draw(st.one_of(*(EVENTS[kind] for kind in near)), "event"))

    @rule(event=ANY_EVENT)
    def anything_is_tried(self, event: Event) -> None:
        if type(event) in possible(self.process):
            self.happen(event)
            return
        if type(event) is ConditionObserved:
            return
        before = copy.deepcopy(self.process)
        with pytest.raises(IllegalTransitionError):
            step(self.process, event)
        assert self.process == before

    def happen(self, event: Event) -> None:
        before = self.process
        kept = copy.deepcopy(before)
        self.process, actions = step(before, event)
        assert before == kept, "a step changed the value it was given"
        assert (self.process.spec, self.process.uuid, self.process.ports) == (
            before.spec,
            before.uuid,
            before.ports,
        )
        self.check(before, event, actions)
        if self.process.visible != before.visible:
            self.published.append(self.process)
        if isinstance(event, Exited | StopTimedOut):
            self.armed = None
        self.run(actions)

    def check(self, before: Process, event: Event, actions: tuple[Action, ...]) -> None:
        if isinstance(event, StopRequested) and before.state in {State.STARTING, State.RUNNING}:
            self.stopped_by_request = True
        if isinstance(event, StopTimedOut):
            assert self.armed is not None, "nothing was armed"
            assert Signal("SIGKILL", session=True) in actions
        else:
            assert not any(isinstance(e, Signal) and e.name == "SIGKILL" for e in actions)
        if isinstance(event, Exited) and before.state in {State.STARTING, State.RUNNING}:
            status = event.status
            assert self.process.state is (State.STOPPED if status.clean else State.ERROR)
            how = f"signal: {status.signal}" if status.signal else f"exit status {status.code}"
            assert self.process.error_msg == ("" if status.clean else how)
        if isinstance(event, TreeGone) and before.state is State.STOPPING:
            assert self.process.state is State.STOPPED
        if isinstance(event, Exited | TreeRemains):
            assert any(isinstance(e, KillTree) for e in actions)
        if before.deletion_requested and before.body is Body.GONE:
            assert actions == (), "something follows the end"

    def run(self, actions: tuple[Action, ...]) -> None:
        for action, following in itertools.zip_longest(actions, actions[1:]):
            match action:
                case Signal(name):
                    self.signals.append(name)
                    timer = Timer.RETRY if name == "SIGKILL" else Timer.GRACE
                    assert following == StartTimer(timer), "a signal without a timer"
                case StartTimer(timer):
                    self.armed = timer
                case Remove():
                    self.forgotten += 1
                    assert following is None

    @invariant()
    def it_is_forgotten_once_when_it_is_doomed_and_nothing_is_left(self) -> None:
        assert self.forgotten == (self.process.deletion_requested and self.process.body is Body.GONE)

    @invariant()
    def watchers_know_what_there_is_to_see(self) -> None:
        last = self.published[-1]
        assert (last.state, last.error_msg, last.conditions) == (
            self.process.state,
            self.process.error_msg,
            self.process.conditions,
        )

    @invariant()
    def the_states_told_are_a_path_with_each_state_once(self) -> None:
        path = [state for state, _ in itertools.groupby(p.state for p in self.published)]
        assert path[0] is State.STARTING
        assert all(after in NEXT[before] for before, after in itertools.pairwise(path))
        assert len(path) == len(set(path))
        assert (State.STOPPING in path) == self.stopped_by_request
        if State.STOPPING in path:
            assert (path[-1] is State.ERROR) <= (self.process.identity is None), "a stop is no error"

    @invariant()
    def a_signal_was_sent_if_an_end_is_awaited(self) -> None:
        awaited = self.process.body is Body.ALIVE and self.process.state in {State.STOPPING, State.ERROR}
        assert awaited == (self.armed is not None)
        assert not awaited or self.signals
        assert self.process.killed == ("SIGKILL" in self.signals)
        assert self.signals[:1] in ([], [self.process.stop_signal])

    @invariant()
    def the_message_says_why_it_is_an_error_and_only_then(self) -> None:
        assert bool(self.process.failure) == (self.process.state is State.ERROR)
        assert self.process.failure in self.process.error_msg

    def teardown(self) -> None:
        """Whatever happened, a delete ends it."""
        if not hasattr(self, "process"):
            return
        self.happen(StopRequested())
        while self.process.body is not Body.GONE:
            match self.process.body:
                case Body.ABSENT:
                    self.happen(Spawned(Identity(7, 70)))
                case Body.ALIVE:
                    self.happen(Exited(ExitStatus(code=1)))
                case Body.LEADER_EXITED:
                    self.happen(TreeGone())
        self.it_is_forgotten_once_when_it_is_doomed_and_nothing_is_left()
        self.the_states_told_are_a_path_with_each_state_once()
        assert self.process.state in {State.STOPPED, State.ERROR}


TestLifecycle = LifecycleMachine.TestCase
