"""What happens to a process; the rules for each event are in `lifecycle`."""

from dataclasses import dataclass

from instance_manager.core.process import ExitStatus, Identity


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
    """It serves on its port, or has none."""


@dataclass(frozen=True, slots=True)
class NotReady:
    """It was not ready in time."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """It is to be stopped, and to leave the list when nothing is left of it."""

    signal: str = "SIGINT"


@dataclass(frozen=True, slots=True)
class Exited:
    """The leader has ended."""

    status: ExitStatus


@dataclass(frozen=True, slots=True)
class StopTimedOut:
    """The timer set by `StartTimer` has expired and the leader is still alive."""

    reason: str
    """What the leader is doing, in case that even SIGKILL did not end it."""


@dataclass(frozen=True, slots=True)
class TreeGone:
    """The leader and all its descendants have ended."""


@dataclass(frozen=True, slots=True)
class TreeRemains:
    """Descendants are still alive although they were sent SIGKILL."""

    reason: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """It cannot be told whether the process that an earlier daemon recorded lives, or it can again."""

    reason: str
    """Empty if it can."""


@dataclass(frozen=True, slots=True)
class ConditionObserved:
    """A condition of the process was observed, for the first time or with a new value."""

    name: str
    value: bool


Event = (
    Spawned
    | SpawnFailed
    | Ready
    | NotReady
    | StopRequested
    | Exited
    | StopTimedOut
    | TreeGone
    | TreeRemains
    | Doubted
    | ConditionObserved
)
