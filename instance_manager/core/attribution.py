"""Whether a process is the one that was recorded, and to which instance one belongs, given the evidence.

A fact that could not be read says nothing: no verdict but "unsure" rests on it.
"""

from dataclasses import dataclass
from enum import StrEnum, auto

from instance_manager.core.process import Identity


@dataclass(frozen=True, slots=True)
class Unread:
    """A fact that could not be read."""

    reason: str


class Liveness(StrEnum):
    """Whether the recorded process lives."""

    ALIVE = auto()
    """It has not been reaped: it may be a zombie."""
    GONE = auto()
    UNSURE = auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found under the PID of a recorded process."""

    present: bool | Unread
    """Whether there is a process with this PID; asked first, by opening a pidfd, which then keeps the PID."""
    start_time: int | Unread | None
    """Its start time, read after that; None if /proc shows no such process."""
    ended: bool | Unread
    """Whether that process had ended after its start time was read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of `judge`."""

    liveness: Liveness
    reason: str = ""
    """Why it is not alive, or why that is unsure."""


def judge(identity: Identity, evidence: Evidence) -> Verdict:
    """Decide whether the process with this identity lives. The journal vouches for the boot."""
    for fact in (evidence.present, evidence.start_time, evidence.ended):
        if isinstance(fact, Unread):
            return Verdict(Liveness.UNSURE, fact.reason)
    if not evidence.present:
        return Verdict(Liveness.GONE, "no process has its PID")
    if evidence.start_time is None:
        if evidence.ended:
            return Verdict(Liveness.GONE, "it has ended")
        # A process that exists and is not shown: /proc is another namespace's, or hides those of others.
        return Verdict(Liveness.UNSURE, "/proc does not show it")
    if evidence.start_time != identity.start_time:
        return Verdict(Liveness.GONE, "another process has its PID")
    return Verdict(Liveness.ALIVE)


class Inherited(StrEnum):
    """Whether a process was inherited, as its parent has ended, by one that inherits what instances leave."""

    NO = auto()
    PERHAPS = auto()
    """The first process of a namespace inherits also what others bring there (nsenter, kubectl exec)."""
    SURELY = auto()
    """So it descends from some instance."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What shows which instance a process belongs to; instances are named by their UUIDs."""

    environment: str | Unread | None
    """The UUID in its environment, None if it has another environment."""
    earlier: str | None = None
    """To which it was attributed before."""
    session: str | None = None
    """Whose session it is in, by the number of the session."""
    session_held: bool = False
    """Whether a member of that instance holds the number, so that it cannot be another session's."""
    parent: str | None = None
    """To which its living parent was attributed."""
    inherited: Inherited = Inherited.NO
    possible: str | None = None
    """The only instance that may have left it behind, if there is just one."""


class Certainty(StrEnum):
    """How sure an attribution is."""

    CERTAIN = auto()
    WEAK = auto()
    """Only the number of its session says so, which may be another's by now."""
    UNSURE = auto()
    """It may belong to the instance named, or to any if none is named, or to none."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The result of `attribute`."""

    owner: str | None
    """UUID of the instance; None if it belongs to none, or, if that is unsure, to an unknown one."""
    certainty: Certainty = Certainty.CERTAIN
    reason: str = ""


def attribute(traces: Traces) -> Attribution:
    """Decide which instance a process belongs to. What it carries counts more than where it is."""
    known = traces.earlier or (traces.environment if isinstance(traces.environment, str) else None)
    known = known or (traces.session if traces.session_held else None) or traces.parent
    if known:
        return Attribution(known)
    reason = traces.environment.reason if isinstance(traces.environment, Unread) else ""
    if traces.session:
        why = reason or "its environment says nothing"
        return Attribution(traces.session, Certainty.WEAK, f"it is in the session, but {why}")
    if traces.inherited is not Inherited.NO:
        if traces.inherited is Inherited.SURELY and traces.possible:
            return Attribution(traces.possible)
        why = reason or "it was inherited, and its environment does not say from whom"
        return Attribution(traces.possible, Certainty.UNSURE, why)
    return Attribution(None, Certainty.UNSURE, reason) if reason else Attribution(None)
