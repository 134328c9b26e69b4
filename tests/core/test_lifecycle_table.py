"""Every state with every event: what may happen, where it leads, and that everything else raises."""

import contextlib
import copy

import pytest

from instance_manager.core import lifecycle
from instance_manager.core.events import (
    ConditionObserved,
    Doubted,
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
from instance_manager.core.lifecycle import IllegalTransitionError, Rule, begin, step
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec

SPEC = ProcessSpec(name="r", binary="/bin/r")

EVENTS: tuple[Event, ...] = (
    Spawned(Identity(pid=7, start_time=70)),
    SpawnFailed("no such file"),
    Ready(),
    NotReady("no answer"),
    StopRequested(),
    StopRequested(signal="SIGHUP"),
    Exited(ExitStatus()),
    Exited(ExitStatus(code=3)),
    Exited(ExitStatus(signal="SIGSEGV")),
    StopTimedOut("pid 7 is in state D"),
    TreeGone(),
    TreeRemains("pid 8 lives on"),
    Doubted("Too many open files"),
    ConditionObserved("FilesystemReadOnly", value=True),
)

KINDS = tuple(dict.fromkeys(map(type, EVENTS)))

STARTING, RUNNING, STOPPING, STOPPED, ERROR = State

EXPECTED: dict[State, dict[type[Event], set[State]]] = {
    STARTING: {
        Spawned: {STARTING},
        SpawnFailed: {ERROR},
        Ready: {RUNNING},
        NotReady: {ERROR},
        StopRequested: {STOPPING},
        Exited: {STOPPED, ERROR},
        Doubted: {STARTING},
        ConditionObserved: {STARTING},
    },
    RUNNING: {
        StopRequested: {STOPPING},
        Exited: {STOPPED, ERROR},
        Doubted: {RUNNING},
        ConditionObserved: {RUNNING},
    },
    STOPPING: {
        Spawned: {STOPPING},
        SpawnFailed: {ERROR},
        StopRequested: {STOPPING},
        Exited: {STOPPING},
        StopTimedOut: {STOPPING},
        TreeGone: {STOPPED},
        TreeRemains: {STOPPING},
        Doubted: {STOPPING},
        ConditionObserved: {STOPPING},
    },
    STOPPED: {
        StopRequested: {STOPPED},
        TreeGone: {STOPPED},
        TreeRemains: {STOPPED},
        ConditionObserved: {STOPPED},
    },
    ERROR: {
        StopRequested: {ERROR},
        Exited: {ERROR},
        StopTimedOut: {ERROR},
        TreeGone: {ERROR},
        TreeRemains: {ERROR},
        Doubted: {ERROR},
        ConditionObserved: {ERROR},
    },
}

NEEDED: dict[type[Event], Body] = {
    Spawned: Body.ABSENT,
    SpawnFailed: Body.ABSENT,
    Ready: Body.ALIVE,
    NotReady: Body.ALIVE,
    Exited: Body.ALIVE,
    StopTimedOut: Body.ALIVE,
    TreeGone: Body.LEADER_EXITED,
    TreeRemains: Body.LEADER_EXITED,
}

REACHABLE = {
    (STARTING, Body.ABSENT),
    (STARTING, Body.ALIVE),
    (RUNNING, Body.ALIVE),
    (STOPPING, Body.ABSENT),
    (STOPPING, Body.ALIVE),
    (STOPPING, Body.LEADER_EXITED),
    (STOPPED, Body.LEADER_EXITED),
    (STOPPED, Body.GONE),
    (ERROR, Body.ALIVE),
    (ERROR, Body.LEADER_EXITED),
    (ERROR, Body.GONE),
}


def explore() -> list[tuple[Process, Event, Process]]:
    """Return every step that can happen to a process from its begin to its end."""
    waiting = [begin(SPEC, "u", None)[0]]
    seen: list[Process] = []
    steps = []
    while waiting:
        before = waiting.pop()
        if before in seen:
            continue
        seen.append(before)
        for event in EVENTS:
            with contextlib.suppress(IllegalTransitionError):
                after, _ = step(before, event)
                steps.append((before, event, after))
                waiting.append(after)
    return steps


STEPS = explore()


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("body", Body)
@pytest.mark.parametrize("state", State)
def test_an_event_leads_where_it_may_or_raises_and_changes_nothing(
    state: State, body: Body, event: Event
) -> None:
    process = Process(spec=SPEC, uuid="u", state=state, body=body, conditions={"Other": False})
    before = copy.deepcopy(process)
    targets = EXPECTED[state].get(type(event), set())
    if targets and NEEDED.get(type(event), body) is body:
        after, _ = step(process, event)
        assert after.state in targets
    else:
        with pytest.raises(IllegalTransitionError, match=type(event).__name__):
            step(process, event)
    assert process == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", State)
def test_the_table_names_exactly_the_states_that_an_event_leads_to(state: State, kind: type[Event]) -> None:
    rule = lifecycle.TABLE[state].get(kind)
    declared = set(rule.targets) if rule else set()
    observed = {
        after.state for before, event, after in STEPS if before.state is state and type(event) is kind
    }
    assert declared == observed == EXPECTED[state].get(kind, set())


def test_a_state_and_what_exists_on_the_machine_fit_together() -> None:
    assert {(after.state, after.body) for _, _, after in STEPS} | {(STARTING, Body.ABSENT)} == REACHABLE


def test_a_rule_cannot_lead_to_a_state_that_it_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    process, _ = begin(SPEC, "u", None)
    lying = Rule(lifecycle.TABLE[STARTING][StopRequested].apply, (RUNNING,))
    table = {**lifecycle.TABLE, STARTING: {StopRequested: lying}}
    monkeypatch.setattr(lifecycle, "TABLE", table)
    with pytest.raises(IllegalTransitionError, match="must not lead from starting to stopping"):
        step(process, StopRequested())
    assert process.state is STARTING


def test_a_state_once_left_never_comes_back() -> None:
    order = {STARTING: 0, RUNNING: 1, STOPPING: 2, STOPPED: 3, ERROR: 3}
    moves = {(before.state, after.state) for before, _, after in STEPS if before.state is not after.state}
    assert moves == {
        (STARTING, RUNNING),
        (STARTING, STOPPING),
        (STARTING, STOPPED),
        (STARTING, ERROR),
        (RUNNING, STOPPING),
        (RUNNING, STOPPED),
        (RUNNING, ERROR),
        (STOPPING, STOPPED),
        (STOPPING, ERROR),
    }
    assert all(order[before] < order[after] for before, after in moves)
