"""One process as a value, the events that happen to it, and the effects that follow.

The rules that connect the three are in `lifecycle`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from instance_manager.core.ports import PortRange
from instance_manager.core.spec import ProcessSpec


class State(StrEnum):
    """The state a client sees."""

    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    STOPPED = auto()
    ERROR = auto()


class Body(StrEnum):
    """What exists on the machine, whatever the state says."""

    ABSENT = auto()
    """Not spawned yet."""
    ALIVE = auto()
    """The leader, the process that was spawned, has not ended."""
    REMNANTS = auto()
    """The leader has ended; descendants of it may live."""
    GONE = auto()
    """Nothing is left."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which OS process it is: a PID alone is recycled, with the start time it is unique until a reboot."""

    pid: int
    start_time: int
    """Clock ticks since boot, field 22 of /proc/PID/stat."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: with a code, or by a signal."""

    code: int = 0
    signal: str = ""
    """Name of the signal that ended it, such as SIGKILL; empty if it ended by itself."""
    known: bool = True
    """Whether anybody saw how it ended."""

    @property
    def clean(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.known and self.code == 0 and not self.signal

    def __str__(self) -> str:
        if not self.known:
            return "exit status unknown: it ended while nobody was there to see how"
        return f"signal: {self.signal}" if self.signal else f"exit status {self.code}"


@dataclass(frozen=True, slots=True)
class Process:
    """One process from the request that created it until nothing is left of it."""

    spec: ProcessSpec
    uuid: str
    ports: PortRange | None = None
    state: State = State.STARTING
    failure: str = ""
    """Why the state is `error`."""
    hindrance: str = ""
    """Why its end takes, or took, more than a signal."""
    conditions: Mapping[str, bool] = field(default_factory=dict)
    body: Body = Body.ABSENT
    identity: Identity | None = None
    exit: ExitStatus | None = None
    stop_signal: str = "SIGINT"
    """Name of the signal that a stop begins with."""
    killed: bool = False
    """SIGKILL has been sent."""
    doomed: bool = False
    """A delete was asked for: it leaves the list when nothing is left of it."""

    @property
    def name(self) -> str:
        """The name, which a later process may take over; the UUID never is."""
        return self.spec.name

    @property
    def error_msg(self) -> str:
        """What a client is told: why it failed and what hinders its end."""
        return "; ".join(filter(None, (self.failure, self.hindrance)))

    @property
    def deleting(self) -> bool:
        """Whether a delete is under way that the state does not tell: what has failed stays in `error`."""
        return self.doomed and self.state is State.ERROR


# --- events: what happened ---


@dataclass(frozen=True, slots=True)
class Spawned:
    """The OS process exists."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The binary could not be executed; there is no OS process."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """It answers on its port, or it has none to answer on."""


@dataclass(frozen=True, slots=True)
class NotReady:
    """The time to get ready is over."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants it to end; with `delete`, to leave the list too."""

    signal: str = "SIGINT"
    delete: bool = True


@dataclass(frozen=True, slots=True)
class Exited:
    """The leader has ended."""

    status: ExitStatus


@dataclass(frozen=True, slots=True)
class Overdue:
    """The timer that `Arm` set has run out and the leader still lives."""

    reason: str
    """What the system says about it, for the case that even SIGKILL did not help."""


@dataclass(frozen=True, slots=True)
class TreeGone:
    """The leader and all its descendants have ended."""


@dataclass(frozen=True, slots=True)
class TreeRemains:
    """Descendants live on although they were killed."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConditionObserved:
    """An observation about the process has changed or was made for the first time."""

    name: str
    value: bool


Event = (
    Spawned
    | SpawnFailed
    | Ready
    | NotReady
    | StopRequested
    | Exited
    | Overdue
    | TreeGone
    | TreeRemains
    | ConditionObserved
)


# --- effects: what has to be done ---


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell the watchers about the process as it is now."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the OS process; answered by `Spawned` or `SpawnFailed`."""


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Find out when it is ready; answered by `Ready` or `NotReady`, dropped when it leaves `starting`."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the leader, or with `session` to its whole process group too."""

    name: str
    session: bool = False


class Timer(StrEnum):
    """How long to wait for an end."""

    GRACE = auto()
    """After the first signal: the stop timeout."""
    RETRY = auto()
    """After SIGKILL: a second or so."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Set the process's one timer; answered by `Overdue` unless the leader ends before."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class KillTree:
    """End every descendant that is left; answered by `TreeGone` or `TreeRemains`."""

    retry: bool = False
    """Wait a little first: the last attempt did not succeed."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Take it off the list, free its ports and tell the watchers deleted=true."""


Effect = Publish | Spawn | AwaitReady | Signal | Arm | KillTree | Forget
