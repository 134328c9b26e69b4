"""What the use cases need of the outside world."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from instance_manager.core.change import Change
from instance_manager.core.process import ExitStatus, Identity, Process


class CannotExecuteError(Exception):
    """The binary cannot be executed (missing, no permission, wrong format); the message says why."""


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """What to start."""

    name: str
    uuid: str
    command: tuple[str, ...]
    """Program and arguments."""
    envelope: str
    """What the process carries along to be taken over when the journal is lost."""
    output: int
    """Descriptor that becomes the process's stdout and stderr; the caller closes its own."""


class Child(Protocol):
    """An OS process that was started, until nothing is left of it."""

    @property
    def identity(self) -> Identity:
        """Which OS process it is."""

    def signal(self, name: str, *, session: bool) -> None:
        """Send the signal of this name, with `session` to its process group too; nothing if it has ended."""

    def describe(self) -> str:
        """Say in words what the process is doing, for an operator who wonders why it does not end."""

    async def end_tree(self) -> str | None:
        """End every descendant of a leader that has ended.

        Returns:
            None when nothing is left, else what remains, in words.
        """


class Spawner(Protocol):
    """Starts OS processes."""

    def permit(self, program: str) -> None:
        """Look whether a program may be started here, be it there or not.

        Raises:
            PermissionDeniedError: if not.
        """

    def spawn(self, order: SpawnOrder, on_exit: Callable[[ExitStatus], None]) -> Child:
        """Start a process and call `on_exit` once, later, when it has ended.

        Raises:
            CannotExecuteError: if the binary cannot be executed.
            PermissionDeniedError: if it may not be started here (any more).
            ResourceExhaustedError: if the machine has no PID, descriptor or memory for it.
        """


class Readiness(Protocol):
    """Finds out whether a process serves."""

    async def wait(self, port: int, within: float) -> str | None:
        """Wait until the process on this local port answers that it serves, `within` seconds at most.

        Returns:
            None when it serves, else what was missing, in words.
        """


class Logs(Protocol):
    """The log files of the processes."""

    def writer(self, name: str) -> AbstractContextManager[int]:
        """Open the log of a process for appending; a descriptor that swallows all if that is impossible."""

    def release(self, name: str) -> None:
        """Say that a process which was given a writer has ended."""

    def read(self, name: str, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines of a log, without line ends.

        Args:
            name: of the process, which need not exist any more.
            follow: go on with what is written until the last process of this name has ended.
            tail: begin with the last `tail` lines, None: from the beginning.

        Raises:
            NotFoundError: if there is no log of this name.
        """


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What the journal holds about one process."""

    process: Process
    listed: bool
    """Whether clients see it under its name."""
    replaces: str = ""
    """UUID of the process whose name it is to take over; empty if it is no replacement."""


class Journal(Protocol):
    """What survives the daemon. Writing never fails for the caller; trouble is counted and told."""

    def record(self, record: JournalRecord, changes: Sequence[Change] = ()) -> None:
        """Write down a process as it is now, before anything is done about it.

        Args:
            record: to write.
            changes: that are about to be told; they are written with the record or, like it, not at all.
        """

    def forget(self, uuid: str, changes: Sequence[Change]) -> None:
        """Cross out a process of which nothing is left, and write down its last changes."""


class Past(Protocol):
    """The changes that an earlier daemon has told."""

    @property
    def revision(self) -> int:
        """Of the latest change, 0 if there was none."""

    @property
    def epoch(self) -> str:
        """Name of the sequence of revisions; another one when what was told before is lost."""

    def changes(self) -> AsyncIterator[Change]:
        """Yield the changes that are remembered up to `revision`, oldest first."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """A living process that carries an instance's identity in its environment."""

    name: str
    uuid: str
    envelope: str
    """See `core.recovery.envelope`."""
    command: tuple[str, ...]
    identity: Identity
    age: float
    """Seconds since its start."""


class Survivors(Protocol):
    """Processes that an earlier daemon has started."""

    def find(self) -> Sequence[Survivor]:
        """Return those that live."""

    def adopt(self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]) -> Child | None:
        """Take over exactly this process and call `on_exit` once when it ends; None if it has already."""

    def remnants(self, identity: Identity, uuid: str) -> Child | None:
        """Return what a process that has ended has left behind, in its stead; None if it left nothing."""

    def exit_status(self, identity: Identity) -> ExitStatus | None:
        """Return how a process has ended that no daemon saw end, None if nobody knows."""


class Cancellable(Protocol):
    """Something under way that can be called off."""

    def cancel(self) -> object:
        """Call it off; nothing if it is over."""


class Clock(Protocol):
    """Time and timers."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds; 0: after what is under way now.

        If the daemon stood still and is late, what has happened meanwhile is reported first.
        """
