"""One process as a value; what happens to it is in `events`, what follows in `actions`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from instance_manager.core.errors import shorten
from instance_manager.core.ports import PortRange
from instance_manager.core.spec import ProcessSpec

MAX_ERROR_BYTES = 384
"""Longest error message: lists hold those of all processes, and a failed spawn names a path."""


class State(StrEnum):
    """The state a client sees."""

    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    STOPPED = auto()
    ERROR = auto()


class Body(StrEnum):
    """Which OS processes exist, independent of the reported state."""

    ABSENT = auto()
    """Not spawned yet."""
    ALIVE = auto()
    """The leader, the process that was spawned, has not ended."""
    LEADER_EXITED = "remnants"  # as journals say since the first version
    """The leader has ended; descendants may still be alive."""
    GONE = auto()
    """Nothing is left."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies an OS process until the next reboot: a PID alone may be reused."""

    pid: int
    start_time: int
    """Clock ticks since boot, field 22 of /proc/PID/stat."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by an exit code or a signal."""

    code: int = 0
    signal: str = ""
    """Name of the signal that killed it, such as SIGKILL; empty if it exited by itself."""
    known: bool = True
    """False if it ended while no daemon or guard could see how."""
    cause: str = ""
    """What is known of why, in words."""

    @property
    def clean(self) -> bool:
        """Whether it exited by itself with status 0."""
        return self.known and self.code == 0 and not self.signal

    def __str__(self) -> str:
        if not self.known:
            return "exit status unknown: the daemon that started it was gone by then"
        status = f"signal: {self.signal}" if self.signal else f"exit status {self.code}"
        return f"{status} ({self.cause})" if self.cause else status


@dataclass(frozen=True, slots=True)
class Process:
    """One process from the request that created it until nothing is left of it."""

    spec: ProcessSpec
    uuid: str
    ports: PortRange | None = None
    state: State = State.STARTING
    failure: str = ""
    """Why the state is `error`."""
    stop_error: str = ""
    """Why a signal is, or was, not enough to stop it."""
    doubt: str = ""
    """Why it cannot be told whether it lives."""
    conditions: Mapping[str, bool] = field(default_factory=dict)
    body: Body = Body.ABSENT
    identity: Identity | None = None
    exit: ExitStatus | None = None
    stop_signal: str = "SIGINT"
    """Name of the signal that stops it first."""
    killed: bool = False
    """Whether SIGKILL has been sent."""
    deletion_requested: bool = False
    """Whether a delete was requested: it leaves the list when nothing is left of it."""

    @property
    def name(self) -> str:
        """The name, which another process may take over; UUIDs are never reused."""
        return self.spec.name

    @property
    def error_msg(self) -> str:
        """The message for clients, at most `MAX_ERROR_BYTES`: doubts, why it failed, why it does not stop."""
        return shorten("; ".join(filter(None, (self.doubt, self.failure, self.stop_error))), MAX_ERROR_BYTES)

    @property
    def visible(self) -> tuple[object, ...]:
        """What watchers see of it; a change of anything else is not published."""
        return self.state, self.error_msg, self.conditions

    @property
    def deleting(self) -> bool:
        """Whether it is being deleted although its state does not show that: it stays in `error`."""
        return self.deletion_requested and self.state is State.ERROR
