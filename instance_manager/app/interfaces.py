"""Protocols of everything outside that the use cases depend on."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from instance_manager.core.change import Change
from instance_manager.core.process import ExitStatus, Identity, Process


class CannotExecuteError(Exception):
    """The binary cannot be executed (missing, no permission, wrong format); the message says why."""


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """What to start."""

    name: str
    uuid: str
    command: tuple[str, ...]
    """Program and arguments."""
    recovery_metadata: str
    """Lets the process be adopted when the journal is lost; see `core.adoption.recovery_metadata`."""
    output: int
    """Descriptor that becomes stdout and stderr of the process; the caller closes its own."""


class Child(Protocol):
    """A started OS process and its descendants."""

    @property
    def identity(self) -> Identity:
        """Which OS process it is."""

    @property
    def launching(self) -> bool:
        """Whether it is not known yet that it executes its program."""

    async def launched(self) -> str | None:
        """Wait until it executes its program, with all that belongs to it under control.

        Returns:
            None if it does, or has ended; else why it never will, in words.
        """

    def signal(self, name: str, *, session: bool) -> None:
        """Send a signal by name, with `session` to its process group too; does nothing if it has ended."""

    def describe(self) -> str:
        """Return in words what the process is doing, to show why it does not end."""

    async def end_tree(self) -> str | None:
        """Kill all descendants after the leader has ended.

        Returns:
            None if nothing is left, else what remains, in words.
        """


class Spawner(Protocol):
    """Starts OS processes."""

    def check_allowed(self, program: str) -> None:
        """Check that a program is allowed, whether or not it exists.

        Raises:
            PermissionDeniedError: if it is not.
        """

    def spawn(self, order: SpawnRequest, on_exit: Callable[[ExitStatus], None]) -> Child:
        """Start a process; `on_exit` is called once, later, when it has ended.

        Raises:
            CannotExecuteError: if the binary cannot be executed.
            PermissionDeniedError: if the binary is not allowed (any more).
            ResourceExhaustedError: if there is no PID, descriptor or memory for it.
        """


class Readiness(Protocol):
    """Waits for a process to serve."""

    async def wait(
        self, port: int, within: float, leader: int, tell: Callable[[str], None] = ...
    ) -> str | None:
        """Wait until the health service of a process says SERVING.

        Args:
            port: the local port on which the process is to listen.
            within: seconds to wait at most.
            leader: PID of the process; what others serve on the port does not count.
            tell: called with what is missing, in words, whenever that has changed.

        Returns:
            None if it serves, else what was missing, in words.
        """


class Logs(Protocol):
    """The log files of the processes."""

    def writer(self, name: str) -> AbstractContextManager[int]:
        """Open the log of a process for appending; the descriptor is of /dev/null if that is impossible."""

    def adopt(self, name: str, pid: int | None) -> None:
        """Go on with the log of a process of an earlier daemon, as if it had been given a writer.

        Args:
            name: name of the process.
            pid: its PID; None if it has ended.
        """

    def release(self, name: str, *, failed: bool = False) -> None:
        """Report that a process that was given a writer, or whose log was adopted, is gone.

        Args:
            name: name of the process.
            failed: whether it ended in error; its log is kept longer.
        """

    def read(self, name: str, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines of a log, without line ends.

        Args:
            name: name of the process, which may have been deleted.
            follow: continue with new lines until the last process of this name has ended.
            tail: start with the last `tail` lines; None for all.

        Raises:
            NotFoundError: if there is no log of this name.
        """


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """The journal's record of one process."""

    process: Process
    listed: bool
    """Whether clients see it under its name."""
    replaces: str = ""
    """UUID of the process whose name it is to take over; empty if it is not a replacement."""


class Journal(Protocol):
    """Storage that survives the daemon. Writing never raises; failures are counted and logged."""

    def record(self, record: JournalRecord, changes: Sequence[Change] = ()) -> None:
        """Write a process as it is now, before its actions are run.

        Args:
            record: the record to write.
            changes: changes about to be published, written in the same transaction.
        """

    def forget(self, uuid: str, changes: Sequence[Change]) -> None:
        """Delete the record of a process of which nothing is left, and write its last changes."""


class EventStore(Protocol):
    """The changes of earlier daemons."""

    @property
    def revision(self) -> int:
        """Revision of the latest change, 0 if there was none."""

    @property
    def epoch(self) -> str:
        """Identifies the sequence of revisions; a new one whenever the earlier changes are lost."""

    def changes(self) -> AsyncIterator[Change]:
        """Yield the changes that are kept up to `revision`, oldest first."""


@dataclass(frozen=True, slots=True)
class Adoptable:
    """A living process that has the identity of an instance in its environment."""

    name: str
    uuid: str
    recovery_metadata: str
    """See `core.adoption.recovery_metadata`."""
    command: tuple[str, ...]
    identity: Identity
    age: float
    """Seconds since its start."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """A living process of which it cannot be told whether it is an instance."""

    identity: Identity | None
    """None if not even that is known."""
    reason: str
    uuid: str = ""
    """Of the instance that it belongs to; empty if that is not known."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The living processes, as far as they can be told."""

    adoptable: Sequence[Adoptable]
    unclear: Sequence[Unclear]


class ProcessAdopter(Protocol):
    """Processes that an earlier daemon has started."""

    async def find(self, *, thorough: bool) -> Findings:
        """Return those that are alive, and those of which that is unclear; see `app.containment`."""

    def adopt(
        self,
        identity: Identity,
        uuid: str,
        on_exit: Callable[[ExitStatus], None],
        on_doubt: Callable[[str], None],
    ) -> Child | None:
        """Take over exactly this process, by its identity; its environment is not asked.

        Args:
            identity: identity in the journal, of this boot.
            uuid: UUID of the instance.
            on_exit: called once when it ends.
            on_doubt: called later with the reason if it cannot be told whether it lives, and with an empty
                one when it can.

        Returns:
            None if it has certainly ended.
        """

    def leftover_descendants(self, identity: Identity, uuid: str) -> Child:
        """Return a handle for the descendants that may have outlived a process that has ended."""

    def exit_status(self, identity: Identity) -> ExitStatus | None:
        """Return how a process ended while no daemon was running, None if unknown."""
