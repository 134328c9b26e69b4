"""The lifecycle of a process: everything that affects its state, in one table.

`step` takes a process and an event, and returns the process after the event and the actions to run.
A pair of state and event that is not in `TABLE` raises an error and changes nothing. The diagram in
docs/architecture.md is drawn from `TABLE` by scripts/state-diagram.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from instance_manager.core import actions, events
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, Process, State
from instance_manager.core.spec import ProcessSpec

Step = tuple[Process, tuple[actions.Action, ...]]


class IllegalTransitionError(Exception):
    """The event cannot happen in this state: a bug in this program, never the fault of a caller."""


def begin(
    spec: ProcessSpec, uuid: str, ports: PortRange | None, conditions: Mapping[str, bool] | None = None
) -> Step:
    """Return a new process in `starting`, and the actions that spawn it."""
    process = Process(spec=spec, uuid=uuid, ports=ports, conditions=dict(conditions or {}))
    return process, (actions.Spawn(),)


def step(process: Process, event: events.Event) -> Step:
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
    after, next_actions = rule.apply(process, event)
    if after.state not in rule.targets:
        raise IllegalTransitionError(
            f"{type(event).__name__} must not lead from {process.state} to {after.state}"
        )
    return after, next_actions


def _request_stop(signal: str) -> tuple[actions.Action, ...]:
    return actions.Signal(signal), actions.StartTimer(actions.Timer.GRACE)


def _spawned(p: Process, e: events.Spawned) -> Step:
    return replace(p, identity=e.identity, body=Body.ALIVE), (actions.AwaitReady(),)


def _spawned_while_stopping(p: Process, e: events.Spawned) -> Step:
    return replace(p, identity=e.identity, body=Body.ALIVE), _request_stop(p.stop_signal)


def _spawn_failed(p: Process, e: events.SpawnFailed) -> Step:
    after = replace(p, state=State.ERROR, failure=e.reason, body=Body.GONE)
    return after, (actions.Remove(),) if p.deletion_requested else ()


def _ready(p: Process, _: events.Ready) -> Step:
    return replace(p, state=State.RUNNING), ()


def _not_ready(p: Process, e: events.NotReady) -> Step:
    after = replace(p, state=State.ERROR, failure=e.reason)
    return after, _request_stop(p.stop_signal)


def _stop(p: Process, e: events.StopRequested) -> Step:
    after = replace(p, state=State.STOPPING, stop_signal=e.signal, deletion_requested=True)
    return after, () if p.body is Body.ABSENT else _request_stop(e.signal)


def _stop_again(p: Process, _: events.StopRequested) -> Step:
    return replace(p, deletion_requested=True), ()


def _stop_ended(p: Process, _: events.StopRequested) -> Step:
    if p.deletion_requested:
        return p, ()
    return replace(p, deletion_requested=True), (actions.Remove(),) if p.body is Body.GONE else ()


def _ended_by_itself(p: Process, e: events.Exited) -> Step:
    state, why = (State.STOPPED, "") if e.status.clean else (State.ERROR, str(e.status))
    after = replace(p, state=state, failure=why, exit=e.status, body=Body.LEADER_EXITED)
    return after, (actions.KillTree(),)


def _leader_ended(p: Process, e: events.Exited) -> Step:
    return replace(p, exit=e.status, body=Body.LEADER_EXITED), (actions.KillTree(),)


def _stop_timed_out(p: Process, e: events.StopTimedOut) -> Step:
    why = (
        f"cannot be killed, trying again: {e.reason}"
        if p.killed
        else f"did not end after {p.stop_signal}, killed"
    )
    after = replace(p, killed=True, stop_error=why)
    return after, (actions.Signal("SIGKILL", session=True), actions.StartTimer(actions.Timer.RETRY))


def _tree_remains(p: Process, e: events.TreeRemains) -> Step:
    why = f"cannot end what it left behind, trying again: {e.reason}"
    return replace(p, stop_error=why), (actions.KillTree(retry=True),)


def _tree_gone_while_stopping(p: Process, _: events.TreeGone) -> Step:
    after = replace(p, state=State.STOPPED, body=Body.GONE)
    return after, (actions.Remove(),) if p.deletion_requested else ()


def _tree_gone(p: Process, _: events.TreeGone) -> Step:
    return replace(p, body=Body.GONE), (actions.Remove(),) if p.deletion_requested else ()


def _doubted(p: Process, e: events.Doubted) -> Step:
    doubt = e.reason and (
        f"cannot tell whether it lives, so its name and ports are kept; trying again: {e.reason}"
    )
    return (p if doubt == p.doubt else replace(p, doubt=doubt)), ()


def _observe(p: Process, e: events.ConditionObserved) -> Step:
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

TABLE: Mapping[State, Mapping[type[events.Event], Rule]] = {
    State.STARTING: {
        events.Spawned: Rule(_spawned, _SAME[State.STARTING]),
        events.SpawnFailed: Rule(_spawn_failed, (State.ERROR,)),
        events.Ready: Rule(_ready, (State.RUNNING,)),
        events.NotReady: Rule(_not_ready, (State.ERROR,)),
        events.StopRequested: Rule(_stop, (State.STOPPING,)),
        events.Exited: Rule(_ended_by_itself, _ENDS),
        events.Doubted: Rule(_doubted, _SAME[State.STARTING]),
        events.ConditionObserved: Rule(_observe, _SAME[State.STARTING]),
    },
    State.RUNNING: {
        events.StopRequested: Rule(_stop, (State.STOPPING,)),
        events.Exited: Rule(_ended_by_itself, _ENDS),
        events.Doubted: Rule(_doubted, _SAME[State.RUNNING]),
        events.ConditionObserved: Rule(_observe, _SAME[State.RUNNING]),
    },
    State.STOPPING: {
        events.Spawned: Rule(_spawned_while_stopping, _SAME[State.STOPPING]),
        events.SpawnFailed: Rule(_spawn_failed, (State.ERROR,)),
        events.StopRequested: Rule(_stop_again, _SAME[State.STOPPING]),
        events.Exited: Rule(_leader_ended, _SAME[State.STOPPING]),
        events.StopTimedOut: Rule(_stop_timed_out, _SAME[State.STOPPING]),
        events.TreeGone: Rule(_tree_gone_while_stopping, (State.STOPPED,)),
        events.TreeRemains: Rule(_tree_remains, _SAME[State.STOPPING]),
        events.Doubted: Rule(_doubted, _SAME[State.STOPPING]),
        events.ConditionObserved: Rule(_observe, _SAME[State.STOPPING]),
    },
    State.STOPPED: {
        events.StopRequested: Rule(_stop_ended, _SAME[State.STOPPED]),
        events.TreeGone: Rule(_tree_gone, _SAME[State.STOPPED]),
        events.TreeRemains: Rule(_tree_remains, _SAME[State.STOPPED]),
        events.ConditionObserved: Rule(_observe, _SAME[State.STOPPED]),
    },
    State.ERROR: {
        events.StopRequested: Rule(_stop_ended, _SAME[State.ERROR]),
        events.Exited: Rule(_leader_ended, _SAME[State.ERROR]),
        events.StopTimedOut: Rule(_stop_timed_out, _SAME[State.ERROR]),
        events.TreeGone: Rule(_tree_gone, _SAME[State.ERROR]),
        events.TreeRemains: Rule(_tree_remains, _SAME[State.ERROR]),
        events.Doubted: Rule(_doubted, _SAME[State.ERROR]),
        events.ConditionObserved: Rule(_observe, _SAME[State.ERROR]),
    },
}

NEEDS: Mapping[type[events.Event], Body] = {
    events.Spawned: Body.ABSENT,
    events.SpawnFailed: Body.ABSENT,
    events.Ready: Body.ALIVE,
    events.NotReady: Body.ALIVE,
    events.Exited: Body.ALIVE,
    events.StopTimedOut: Body.ALIVE,
    events.TreeGone: Body.LEADER_EXITED,
    events.TreeRemains: Body.LEADER_EXITED,
}
"""The body that a process must have for an event to be possible."""
