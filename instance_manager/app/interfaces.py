"""What the use cases need of the outside world."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from instance_manager.core.process import ExitStatus, Identity


class CannotExecuteError(Exception):
    """The binary cannot be executed (missing, no permission, wrong format); the message says why."""


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """What to start."""

    name: str
    uuid: str
    command: tuple[str, ...]
    """Program and arguments."""
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

    def spawn(self, order: SpawnOrder, on_exit: Callable[[ExitStatus], None]) -> Child:
        """Start a process and call `on_exit` once, later, when it has ended.

        Raises:
            CannotExecuteError: if the binary cannot be executed.
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


class Cancellable(Protocol):
    """Something under way that can be called off."""

    def cancel(self) -> object:
        """Call it off; nothing if it is over."""


class Clock(Protocol):
    """Time and timers."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds; 0: after what is under way now."""
