"""What has to be done about a process; the outcome of each action is an event."""

from dataclasses import dataclass
from enum import StrEnum, auto


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the OS process; answered by `Spawned` or `SpawnFailed`."""


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Wait until it is ready; answered by `Ready` or `NotReady`, called off when it leaves `starting`."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the leader, or with `session` to its whole process group too."""

    name: str
    session: bool = False


class Timer(StrEnum):
    """How long to wait for the leader to end."""

    GRACE = auto()
    """The stop timeout, after the first signal."""
    RETRY = auto()
    """A second or so, after SIGKILL."""


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Set the timer of the process; answered by `StopTimedOut` unless the leader ends first."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class KillTree:
    """Kill all remaining descendants; answered by `TreeGone` or `TreeRemains`."""

    retry: bool = False
    """Whether to wait a little first, because the last attempt failed."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Take it off the list and free its ports; recorded as its last change."""


Action = Spawn | AwaitReady | Signal | StartTimer | KillTree | Remove
