"""What a process goes through: states, messages and actions, one story per test."""

import pytest

from instance_manager.core import lifecycle
from instance_manager.core.actions import (
    Action,
    AwaitReady,
    KillTree,
    Remove,
    Signal,
    Spawn,
    StartTimer,
    Timer,
)
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
from instance_manager.core.lifecycle import IllegalTransitionError, begin
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec

SPAWNED = Spawned(Identity(pid=7, start_time=70))
STOP_AND_ARM = (Signal("SIGINT"), StartTimer(Timer.GRACE))
KILL_AND_ARM = (Signal("SIGKILL", session=True), StartTimer(Timer.RETRY))


PUBLISHED = "published"
"""Stands before the actions of a transition that watchers see."""
Taken = tuple[Process, tuple[str | Action, ...]]


def step(process: Process, event: Event) -> Taken:
    """Return a process after an event, and what follows, publishing included."""
    after, actions = lifecycle.step(process, event)
    return after, actions if after.visible == process.visible else (PUBLISHED, *actions)


def after(*events: Event) -> Taken:
    """Return a process after these events, and what follows the last one."""
    actions: tuple[str | Action, ...]
    process, actions = begin(ProcessSpec(name="r", binary="/bin/r"), "u", PortRange(10000, 10001))
    for event in events:
        process, actions = step(process, event)
    return process, actions


def test_a_new_process_is_starting_and_is_spawned() -> None:
    process, actions = begin(ProcessSpec(name="r", binary="/bin/r"), "u", None, {"Full": True})
    assert actions == (Spawn(),)
    assert process.state is State.STARTING
    assert (process.name, process.uuid, process.conditions) == ("r", "u", {"Full": True})
    assert process.error_msg == ""


def test_a_spawned_process_runs_as_soon_as_it_is_ready() -> None:
    process, actions = after(SPAWNED)
    assert (process.state, process.identity, actions) == (State.STARTING, SPAWNED.identity, (AwaitReady(),))
    process, actions = step(process, Ready())
    assert (process.state, actions) == (State.RUNNING, (PUBLISHED,))


def test_a_process_that_cannot_be_executed_is_an_error_and_stays_listed() -> None:
    process, actions = after(SpawnFailed("no such file"))
    assert (process.state, process.body, process.error_msg) == (State.ERROR, Body.GONE, "no such file")
    assert actions == (PUBLISHED,)


def test_a_process_that_is_not_ready_in_time_is_an_error_and_is_ended() -> None:
    process, actions = after(SPAWNED, NotReady("no answer"))
    assert (process.state, process.error_msg) == (State.ERROR, "no answer")
    assert actions == (PUBLISHED, *STOP_AND_ARM)
    _, actions = step(process, StopTimedOut("pid 7 sleeps"))
    assert actions == (PUBLISHED, *KILL_AND_ARM)


@pytest.mark.parametrize("ready", [(), (Ready(),)], ids=["starting", "running"])
@pytest.mark.parametrize(
    ("status", "state", "message"),
    [
        (ExitStatus(), State.STOPPED, ""),
        (ExitStatus(code=3), State.ERROR, "exit status 3"),
        (ExitStatus(signal="SIGSEGV"), State.ERROR, "signal: SIGSEGV"),
    ],
    ids=str,
)
def test_a_process_that_ends_by_itself_tells_how(
    ready: tuple[Ready, ...], status: ExitStatus, state: State, message: str
) -> None:
    process, actions = after(SPAWNED, *ready, Exited(status))
    assert (process.state, process.error_msg, process.exit) == (state, message, status)
    assert process.body is Body.LEADER_EXITED
    assert actions == (PUBLISHED, KillTree())


@pytest.mark.parametrize("ready", [(), (Ready(),)], ids=["starting", "running"])
def test_a_stop_begins_with_the_signal_asked_for_and_a_timer(ready: tuple[Ready, ...]) -> None:
    process, actions = after(SPAWNED, *ready, StopRequested(signal="SIGHUP"))
    assert process.state is State.STOPPING
    assert actions == (PUBLISHED, Signal("SIGHUP"), StartTimer(Timer.GRACE))


@pytest.mark.parametrize("status", [ExitStatus(), ExitStatus(code=3), ExitStatus(signal="SIGKILL")], ids=str)
def test_a_process_that_ends_while_stopping_is_stopped_however_it_ends(status: ExitStatus) -> None:
    process, actions = after(SPAWNED, Ready(), StopRequested(), Exited(status))
    assert (process.state, actions) == (State.STOPPING, (KillTree(),))
    process, actions = step(process, TreeGone())
    assert (process.state, process.error_msg) == (State.STOPPED, "")
    assert actions == (PUBLISHED, Remove())


def test_a_delete_of_a_process_that_is_being_stopped_sends_no_second_signal() -> None:
    process, actions = after(SPAWNED, Ready(), StopRequested(), StopRequested())
    assert (process.deletion_requested, actions) == (True, ())
    process, actions = step(process, StopRequested())
    assert (process.deletion_requested, actions) == (True, ())


def test_a_process_stopped_before_it_was_spawned_is_signalled_once_it_is() -> None:
    process, actions = after(StopRequested(signal="SIGHUP"))
    assert (process.state, actions) == (State.STOPPING, (PUBLISHED,))
    process, actions = step(process, SPAWNED)
    assert process.state is State.STOPPING
    assert actions == (Signal("SIGHUP"), StartTimer(Timer.GRACE))


def test_a_process_stopped_before_it_was_spawned_is_forgotten_if_it_never_is() -> None:
    process, actions = after(StopRequested(), SpawnFailed("no room"))
    assert (process.state, actions) == (State.ERROR, (PUBLISHED, Remove()))


def test_a_process_that_ignores_the_signal_is_killed_with_its_session_and_says_so() -> None:
    process, actions = after(SPAWNED, Ready(), StopRequested(), StopTimedOut("pid 7 sleeps"))
    assert actions == (PUBLISHED, *KILL_AND_ARM)
    assert (process.state, process.killed) == (State.STOPPING, True)
    assert process.error_msg == "did not end after SIGINT, killed"


def test_a_process_that_cannot_be_killed_stays_stopping_and_says_why_once() -> None:
    process, actions = after(
        SPAWNED, StopRequested(), StopTimedOut("sleeps"), StopTimedOut("pid 7 is in state D")
    )
    assert process.state is State.STOPPING
    assert process.error_msg == "cannot be killed, trying again: pid 7 is in state D"
    assert actions == (PUBLISHED, *KILL_AND_ARM)
    again, actions = step(process, StopTimedOut("pid 7 is in state D"))
    assert (again, actions) == (process, KILL_AND_ARM)


def test_what_a_process_leaves_behind_is_ended_again_and_again() -> None:
    process, actions = after(SPAWNED, StopRequested(), Exited(ExitStatus()), TreeRemains("pid 8 lives on"))
    assert (process.state, process.body) == (State.STOPPING, Body.LEADER_EXITED)
    assert process.error_msg == "cannot end what it left behind, trying again: pid 8 lives on"
    assert actions == (PUBLISHED, KillTree(retry=True))
    assert step(process, TreeRemains("pid 8 lives on")) == (process, (KillTree(retry=True),))


def test_a_failure_and_what_hinders_the_end_are_both_told() -> None:
    process, _ = after(SPAWNED, Exited(ExitStatus(code=3)), TreeRemains("pid 8 lives on"))
    assert process.error_msg == (
        "exit status 3; cannot end what it left behind, trying again: pid 8 lives on"
    )


def test_a_failed_process_that_is_deleted_is_forgotten_when_nothing_is_left() -> None:
    process, actions = after(SPAWNED, NotReady("no answer"), StopRequested())
    assert (process.deletion_requested, actions) == (True, ())
    process, actions = step(process, Exited(ExitStatus(signal="SIGINT")))
    assert actions == (KillTree(),)
    process, actions = step(process, TreeGone())
    assert (process.state, process.error_msg, actions) == (State.ERROR, "no answer", (Remove(),))


def test_a_second_delete_of_a_forgotten_process_does_nothing() -> None:
    gone, actions = after(SpawnFailed("no such file"), StopRequested())
    assert actions == (Remove(),)
    assert step(gone, StopRequested()) == (gone, ())


def test_a_condition_is_published_when_it_is_new_or_changed_and_only_then() -> None:
    process, actions = after(SPAWNED, ConditionObserved("Full", value=False))
    assert (process.conditions, actions) == ({"Full": False}, (PUBLISHED,))
    assert step(process, ConditionObserved("Full", value=False)) == (process, ())
    changed, actions = step(process, ConditionObserved("Full", value=True))
    assert (changed.conditions, actions) == ({"Full": True}, (PUBLISHED,))
    assert process.conditions == {"Full": False}


def test_an_impossible_event_is_named_with_the_state() -> None:
    process, _ = after(SPAWNED, Ready())
    with pytest.raises(IllegalTransitionError, match="StopTimedOut cannot happen in running"):
        step(process, StopTimedOut("?"))
    with pytest.raises(IllegalTransitionError, match="Exited takes a body that is alive"):
        step(after()[0], Exited(ExitStatus()))


def test_how_a_process_ended_that_was_stopped_is_kept() -> None:
    process, _ = after(SPAWNED, Ready(), StopRequested(), Exited(ExitStatus(code=3)))
    assert (process.state, process.exit) == (State.STOPPING, ExitStatus(code=3))


def test_what_is_observed_again_changes_nothing_at_all() -> None:
    process, _ = after(SPAWNED, Ready(), ConditionObserved("Full", value=True))
    assert lifecycle.step(process, ConditionObserved("Full", value=True)) == (process, ())
    assert lifecycle.step(process, ConditionObserved("Full", value=True))[0] is process


def test_a_second_delete_of_what_failed_changes_nothing_at_all() -> None:
    process, _ = after(SPAWNED, NotReady("why"), StopRequested())
    assert lifecycle.step(process, StopRequested())[0] is process
