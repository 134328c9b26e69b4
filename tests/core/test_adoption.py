"""Taking over: what is decided about each process, and what it carries along."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.actions import AwaitReady, KillTree, Remove, Signal, StartTimer, Timer
from instance_manager.core.adoption import (
    UNKNOWN_EXIT,
    parse_recovery_metadata,
    plan_adoption,
    recovery_metadata,
)
from instance_manager.core.events import Exited, Spawned, SpawnFailed
from instance_manager.core.lifecycle import step
from instance_manager.core.ports import PortPool, PortRange
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec, command_line

IDENTITY = Identity(4711, 123456)
SPEC = ProcessSpec("r", "/bin/r", ("a", "b"), 2, ("--listen,0.0.0.0:",))


def journaled(state: State, body: Body, **fields: object) -> Process:
    process = Process(spec=SPEC, uuid="u", ports=PortRange(10, 11), state=state, body=body, identity=IDENTITY)
    return replace(process, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "fields", "actions"),
    [
        (State.STARTING, {}, (AwaitReady(),)),
        (State.RUNNING, {}, ()),
        (State.STOPPING, {}, (Signal("SIGINT"), StartTimer(Timer.GRACE))),
        (State.STOPPING, {"stop_signal": "SIGHUP"}, (Signal("SIGHUP"), StartTimer(Timer.GRACE))),
        (State.STOPPING, {"killed": True}, (Signal("SIGKILL", session=True), StartTimer(Timer.RETRY))),
        (State.ERROR, {}, (Signal("SIGINT"), StartTimer(Timer.GRACE))),
    ],
)
def test_a_living_process_goes_on_where_it_was(
    state: State, fields: dict[str, object], actions: tuple[object, ...]
) -> None:
    assert plan_adoption(journaled(state, Body.ALIVE, **fields), IDENTITY, None) == (actions, ())


def test_a_process_that_ended_meanwhile_ends_as_the_guard_saw_it() -> None:
    status = ExitStatus(code=7)
    assert plan_adoption(journaled(State.RUNNING, Body.ALIVE), None, status) == ((), (Exited(status),))


def test_a_process_whose_end_nobody_saw_has_an_unknown_exit_status() -> None:
    actions, events = plan_adoption(journaled(State.RUNNING, Body.ALIVE), None, None)
    assert (actions, events) == ((), (Exited(UNKNOWN_EXIT),))
    after, _ = step(journaled(State.RUNNING, Body.ALIVE), events[0])
    assert after.state is State.ERROR
    assert "exit status unknown" in after.error_msg


def test_an_intent_without_a_process_is_a_failed_spawn() -> None:
    intent = journaled(State.STARTING, Body.ABSENT, identity=None)
    (event,) = plan_adoption(intent, None, None)[1]
    assert isinstance(event, SpawnFailed)


def test_an_intent_whose_process_lives_is_a_spawn() -> None:
    intent = journaled(State.STARTING, Body.ABSENT, identity=None)
    assert plan_adoption(intent, IDENTITY, None) == ((), (Spawned(IDENTITY),))


def test_remnants_are_hunted_on() -> None:
    assert plan_adoption(journaled(State.STOPPING, Body.LEADER_EXITED), None, None) == ((KillTree(),), ())


@pytest.mark.parametrize("deletion_requested", [False, True])
def test_what_is_gone_stays_listed_unless_it_was_deleted(deletion_requested: bool) -> None:
    actions, events = plan_adoption(
        journaled(State.STOPPED, Body.GONE, deletion_requested=deletion_requested), None, None
    )
    assert (actions, events) == ((Remove(),) if deletion_requested else (), ())


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
specs = st.builds(
    lambda args, count, port_args, kind, volume: ProcessSpec(
        "r", "/bin/r", tuple(args), count, tuple(port_args[:count]), kind, volume
    ),
    st.lists(words, max_size=4),
    st.integers(0, 3),
    st.lists(words, max_size=3),
    st.sampled_from(["", "engine", "replica"]),
    words,
)


@given(specs, st.lists(words, max_size=2), words)
def test_a_process_is_recovered_from_what_it_carries_and_its_command_line(
    spec: ProcessSpec, interpreter: list[str], replaces: str
) -> None:
    ports = PortRange(100, 100 + spec.port_count - 1) if spec.port_count else None
    process = Process(spec=spec, uuid="u", ports=ports, body=Body.ALIVE)
    command = (*interpreter, *command_line(spec, ports))
    text = recovery_metadata(process, replaces)
    found = parse_recovery_metadata("r", "u", text, command, IDENTITY)
    recovered = found.process
    assert (recovered.spec, recovered.ports, recovered.identity) == (spec, ports, IDENTITY)
    assert (found.replaces, found.as_started) == (replaces, True)


WRONG_WORDS = recovery_metadata(journaled(State.RUNNING, Body.ALIVE), "").replace('["a","b"]', '"ab"')


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "no json", '{"binary":1,"args":"x"}', WRONG_WORDS])
def test_what_is_no_envelope_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_recovery_metadata("r", "u", text, ("/bin/r",), IDENTITY)


@pytest.mark.parametrize("name", ["", "../../tmp/x", "a/b", "A"])
def test_a_name_that_no_process_has_is_a_value_error(name: str) -> None:
    text = recovery_metadata(journaled(State.RUNNING, Body.ALIVE), "")
    command = command_line(SPEC, PortRange(10, 11))
    with pytest.raises(ValueError, match="no recovery metadata"):
        parse_recovery_metadata(name, "u", text, command, IDENTITY)


OTHERS = [("sleep", "1"), (), ("/bin/r", "a", "b"), ("--listen", "0.0.0.0:10"), ("myengine",)]
OTHERS += [("x", "--listen", "0.0.0.0:10"), ("a", "b", "c", "d", "e", "f")]


@pytest.mark.parametrize("command", OTHERS)
def test_a_process_that_has_another_command_line_by_now_is_recovered_all_the_same(
    command: tuple[str, ...],
) -> None:
    """It has executed another program, or shows a title."""
    process = journaled(State.RUNNING, Body.ALIVE)
    found = parse_recovery_metadata("r", "u", recovery_metadata(process, ""), command, IDENTITY)
    assert (found.process.spec, found.process.ports) == (process.spec, process.ports)
    assert not found.as_started


@pytest.mark.parametrize("command", OTHERS)
def test_if_nothing_tells_its_arguments_it_has_none(command: tuple[str, ...]) -> None:
    """Long ones are not carried, nor were any by earlier versions."""
    process = journaled(State.RUNNING, Body.ALIVE)
    process = replace(process, spec=replace(process.spec, args=("x" * 9000, "b")))
    text = recovery_metadata(process, "")
    assert len(text) < 9000
    found = parse_recovery_metadata("r", "u", text, command, IDENTITY)
    assert (found.process.spec, found.as_started) == (replace(process.spec, args=()), False)
    whole = command_line(process.spec, process.ports)
    found = parse_recovery_metadata("r", "u", text, whole, IDENTITY)
    assert (found.process.spec, found.as_started) == (process.spec, True)


def test_an_envelope_that_the_kernel_would_not_take_is_left_out() -> None:
    spec = replace(SPEC, port_args=("x" * 200_000,))
    assert recovery_metadata(Process(spec=spec, uuid="u", ports=PortRange(1, 2)), "") == ""


def test_a_reserved_range_is_not_handed_out_and_can_be_released() -> None:
    pool = PortPool.of(PortRange(10, 19)).reserve(PortRange(12, 13))
    pool, ports = pool.allocate(4)
    assert ports == PortRange(14, 17)
    pool, ports = pool.allocate(2)
    assert ports == PortRange(18, 19)
    pool = pool.release(PortRange(12, 13))
    assert pool.allocate(4)[1] == PortRange(10, 13)


def test_ranges_outside_the_span_are_kept_apart() -> None:
    pool = PortPool.of(PortRange(10, 19)).reserve(PortRange(5, 11)).reserve(PortRange(30, 39))
    assert pool.free_count == 8
    assert pool.allocate(8)[1] == PortRange(12, 19)
    assert pool.release(PortRange(30, 39)).release(PortRange(5, 11)).free_count == 10


def test_a_range_cannot_be_reserved_twice() -> None:
    pool = PortPool.of(PortRange(10, 19)).reserve(PortRange(12, 13))
    with pytest.raises(ValueError, match="handed out already"):
        pool.reserve(PortRange(13, 14))


def test_after_a_range_outside_of_the_span_was_reserved_the_search_stays_in_it() -> None:
    pool = PortPool.of(PortRange(10, 19)).reserve(PortRange(15, 24)).reserve(PortRange(30, 39))
    assert pool.cursor == 10
    assert pool.allocate(5)[1] == PortRange(10, 14)


def test_what_is_reserved_was_used_last_so_the_search_goes_on_behind_it() -> None:
    pool = PortPool.of(PortRange(10, 19)).reserve(PortRange(12, 13))
    pool = pool.release(PortRange(12, 13))
    assert pool.allocate(2)[1] == PortRange(14, 15)
