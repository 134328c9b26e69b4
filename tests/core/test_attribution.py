"""Whether a process lives and whose it is: what could not be read is never taken for an answer."""

from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.attribution import (
    Certainty,
    Evidence,
    Liveness,
    Traces,
    Unread,
    attribute,
    judge,
)
from instance_manager.core.process import Identity

ME = Identity(4711, 100)
UNREAD = st.builds(Unread, st.sampled_from(["Too many open files", "Permission denied", "it hangs"]))
FLAGS = st.booleans()
TICKS = st.none() | st.sampled_from([100, 101])
EVIDENCE = st.builds(Evidence, present=FLAGS | UNREAD, start_time=TICKS | UNREAD, ended=FLAGS | UNREAD)
UUIDS = st.none() | st.sampled_from(["u", "v"])
TRACES = st.builds(
    Traces, environment=UUIDS | UNREAD, earlier=UUIDS, session=UUIDS, session_held=FLAGS, parent=UUIDS
)


def unread(evidence: Evidence) -> bool:
    return any(isinstance(f, Unread) for f in (evidence.present, evidence.start_time, evidence.ended))


@given(EVIDENCE)
def test_no_evidence_with_an_unread_fact_ever_says_that_a_process_is_gone(evidence: Evidence) -> None:
    verdict = judge(ME, evidence)
    assert not unread(evidence) or verdict.liveness is Liveness.UNSURE
    assert verdict.reason or verdict.liveness is Liveness.ALIVE


@given(EVIDENCE)
def test_a_process_with_its_pid_and_start_time_is_alive_whatever_else(evidence: Evidence) -> None:
    same = evidence.present is True and evidence.start_time == ME.start_time
    assert (judge(ME, evidence).liveness is Liveness.ALIVE) == (same and not unread(evidence))


def test_a_process_is_gone_if_its_pid_is_free_or_another_has_it() -> None:
    assert judge(ME, Evidence(present=False, start_time=None, ended=False)).liveness is Liveness.GONE
    assert judge(ME, Evidence(present=True, start_time=101, ended=False)).liveness is Liveness.GONE
    assert judge(ME, Evidence(present=True, start_time=None, ended=True)).liveness is Liveness.GONE


def test_a_process_that_exists_but_is_not_shown_may_be_it() -> None:
    assert judge(ME, Evidence(present=True, start_time=None, ended=False)).liveness is Liveness.UNSURE


@given(TRACES)
def test_a_process_whose_environment_could_not_be_read_is_never_taken_for_nobodys(traces: Traces) -> None:
    found = attribute(traces)
    if found.owner is None and found.certainty is Certainty.CERTAIN:
        assert traces.environment is None
    if found.certainty is not Certainty.CERTAIN:
        assert found.reason


@given(TRACES)
def test_only_the_number_of_a_session_that_nobody_holds_makes_an_attribution_weak(traces: Traces) -> None:
    found = attribute(traces)
    others = traces.earlier, traces.parent, traces.session if traces.session_held else None
    proven = any(others) or isinstance(traces.environment, str)
    assert (found.certainty is Certainty.CERTAIN and found.owner is not None) == proven
    assert (found.certainty is Certainty.WEAK) == (not proven and traces.session is not None)


@given(TRACES)
def test_what_a_process_carries_counts_more_than_its_session_and_its_parent(traces: Traces) -> None:
    if isinstance(traces.environment, str) and traces.earlier is None:
        assert attribute(traces).owner == traces.environment
    if traces.earlier is not None:
        assert attribute(traces).owner == traces.earlier
