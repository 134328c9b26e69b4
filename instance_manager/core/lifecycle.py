"""The lifecycle of a process: everything that affects its state, in one table.

`step` takes a process and an event, and returns the process after the event and the actions to run.
A pair of state and event that is not in `TABLE` raises an error and changes nothing. The diagram in
docs/architecture.md is drawn from `TABLE` by scripts/state-diagram.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from instance_manager.core.ports import PortRange
from instance_manager.core.process import (
    Action,
    AwaitReady,
    Body,
    ConditionObserved,
    Event,
    Exited,
    KillTree,
    NotReady,
    Process,
    Ready,
    Remove,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    StartTimer,
    State,
    StopRequested,
    StopTimedOut,
    Timer,
    TreeGone,
    TreeRemains,
)
from instance_manager.core.spec import ProcessSpec

Step = tuple[Process, tuple[Action, ...]]


class IllegalTransitionError(Exception):
    """The event cannot happen in this state: a bug in this program, never the fault of a caller."""


def begin(
    spec: ProcessSpec, uuid: str, ports: PortRange | None, conditions: Mapping[str, bool] | None = None
) -> Step:
    """Return a new process in `starting`, and the actions that spawn it."""
    process = Process(spec=spec, uuid=uuid, ports=ports, conditions=dict(conditions or {}))
    return process, (Spawn(),)


def step(process: Process, event: Event) -> Step:
    """Apply one event.

    Raises:
        IllegalTransitionError: if the event cannot happen in this state.
    """
    rule = TABLE[process.state].get(type(event))
    if rule is None:
        raise IllegalTransitionError(f"{type(event).__name__} cannot happen in {process.state}: {process}")
    needs = NEEDS.get(type(event))
    if needs is not None and process.body is not needs:
        raise IllegalTransitionError(f"{type(event).__name__} takes a body that is {needs}: {process}")
    after, actions = rule.apply(process, event)
    if after.state not in rule.targets:
        raise IllegalTransitionError(
            f"{type(event).__name__} must not lead from {process.state} to {after.state}"
        )
    return after, actions


def _spawned(p: Process, e: Spawned) -> Step:
    return replace(p, identity=e.identity, body=Body.ALIVE), (AwaitReady(),)


def _spawned_while_stopping(p: Process, e: Spawned) -> Step:
    return replace(p, identity=e.identity, body=Body.ALIVE), (Signal(p.stop_signal), StartTimer(Timer.GRACE))


def _spawn_failed(p: Process, e: SpawnFailed) -> Step:
    after = replace(p, state=State.ERROR, failure=e.reason, body=Body.GONE)
    return after, (Remove(),) if p.deletion_requested else ()


def _ready(p: Process, _: Ready) -> Step:
    return replace(p, state=State.RUNNING), ()


def _not_ready(p: Process, e: NotReady) -> Step:
    after = replace(p, state=State.ERROR, failure=e.reason)
    return after, (Signal(p.stop_signal), StartTimer(Timer.GRACE))


def _stop(p: Process, e: StopRequested) -> Step:
    after = replace(p, state=State.STOPPING, stop_signal=e.signal, deletion_requested=True)
    if p.body is Body.ABSENT:
        return after, ()
    return after, (Signal(e.signal), StartTimer(Timer.GRACE))


def _stop_again(p: Process, _: StopRequested) -> Step:
    return replace(p, deletion_requested=True), ()


def _stop_ended(p: Process, _: StopRequested) -> Step:
    last = p.body is Body.GONE and not p.deletion_requested
    return replace(p, deletion_requested=True), (Remove(),) if last else ()


def _ended_by_itself(p: Process, e: Exited) -> Step:
    state, why = (State.STOPPED, "") if e.status.clean else (State.ERROR, str(e.status))
    after = replace(p, state=state, failure=why, exit=e.status, body=Body.LEADER_EXITED)
    return after, (KillTree(),)


def _leader_ended(p: Process, e: Exited) -> Step:
    return replace(p, exit=e.status, body=Body.LEADER_EXITED), (KillTree(),)


def _stop_timed_out(p: Process, e: StopTimedOut) -> Step:
    why = (
        f"cannot be killed, trying again: {e.reason}"
        if p.killed
        else f"did not end after {p.stop_signal}, killed"
    )
    after = replace(p, killed=True, stop_error=why)
    return after, (Signal("SIGKILL", session=True), StartTimer(Timer.RETRY))


def _tree_remains(p: Process, e: TreeRemains) -> Step:
    why = f"cannot end what it left behind, trying again: {e.reason}"
    return replace(p, stop_error=why), (KillTree(retry=True),)


def _tree_gone_while_stopping(p: Process, _: TreeGone) -> Step:
    after = replace(p, state=State.STOPPED, body=Body.GONE)
    return after, (Remove(),) if p.deletion_requested else ()


def _tree_gone(p: Process, _: TreeGone) -> Step:
    return replace(p, body=Body.GONE), (Remove(),) if p.deletion_requested else ()


def _observe(p: Process, e: ConditionObserved) -> Step:
    if p.conditions.get(e.name) is e.value:
        return p, ()
    return replace(p, conditions={**p.conditions, e.name: e.value}), ()


@dataclass(frozen=True, slots=True)
class Rule:
    """What an event does in a state, and which states may follow."""

    apply: Callable[[Process, Any], Step]
    targets: tuple[State, ...]


_ENDS = (State.STOPPED, State.ERROR)
_SAME = {state: (state,) for state in State}

TABLE: Mapping[State, Mapping[type[Event], Rule]] = {
    State.STARTING: {
        Spawned: Rule(_spawned, _SAME[State.STARTING]),
        SpawnFailed: Rule(_spawn_failed, (State.ERROR,)),
        Ready: Rule(_ready, (State.RUNNING,)),
        NotReady: Rule(_not_ready, (State.ERROR,)),
        StopRequested: Rule(_stop, (State.STOPPING,)),
        Exited: Rule(_ended_by_itself, _ENDS),
        ConditionObserved: Rule(_observe, _SAME[State.STARTING]),
    },
    State.RUNNING: {
        StopRequested: Rule(_stop, (State.STOPPING,)),
        Exited: Rule(_ended_by_itself, _ENDS),
        ConditionObserved: Rule(_observe, _SAME[State.RUNNING]),
    },
    State.STOPPING: {
        Spawned: Rule(_spawned_while_stopping, _SAME[State.STOPPING]),
        SpawnFailed: Rule(_spawn_failed, (State.ERROR,)),
        StopRequested: Rule(_stop_again, _SAME[State.STOPPING]),
        Exited: Rule(_leader_ended, _SAME[State.STOPPING]),
        StopTimedOut: Rule(_stop_timed_out, _SAME[State.STOPPING]),
        TreeGone: Rule(_tree_gone_while_stopping, (State.STOPPED,)),
        TreeRemains: Rule(_tree_remains, _SAME[State.STOPPING]),
        ConditionObserved: Rule(_observe, _SAME[State.STOPPING]),
    },
    State.STOPPED: {
        StopRequested: Rule(_stop_ended, _SAME[State.STOPPED]),
        TreeGone: Rule(_tree_gone, _SAME[State.STOPPED]),
        TreeRemains: Rule(_tree_remains, _SAME[State.STOPPED]),
        ConditionObserved: Rule(_observe, _SAME[State.STOPPED]),
    },
    State.ERROR: {
        StopRequested: Rule(_stop_ended, _SAME[State.ERROR]),
        Exited: Rule(_leader_ended, _SAME[State.ERROR]),
        StopTimedOut: Rule(_stop_timed_out, _SAME[State.ERROR]),
        TreeGone: Rule(_tree_gone, _SAME[State.ERROR]),
        TreeRemains: Rule(_tree_remains, _SAME[State.ERROR]),
        ConditionObserved: Rule(_observe, _SAME[State.ERROR]),
    },
}

NEEDS: Mapping[type[Event], Body] = {
    Spawned: Body.ABSENT,
    SpawnFailed: Body.ABSENT,
    Ready: Body.ALIVE,
    NotReady: Body.ALIVE,
    Exited: Body.ALIVE,
    StopTimedOut: Body.ALIVE,
    TreeGone: Body.LEADER_EXITED,
    TreeRemains: Body.LEADER_EXITED,
}
"""The body that a process must have for an event to be possible."""
