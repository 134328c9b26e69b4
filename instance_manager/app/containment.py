"""Containment: which OS processes belong to an instance, and how all of them are ended.

There are two ways to tell. `adapters.cgroup` has the kernel keep count: a process of a cgroup cannot leave
it, whatever it does to itself. `adapters.process.session` looks from outside: at sessions, parents and
environments.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Protocol

from instance_manager.app.interfaces import Findings
from instance_manager.core.limits import InstanceLimits
from instance_manager.core.process import Identity
from instance_manager.core.usage import Usage


class Kind(StrEnum):
    """The ways to tell what belongs to an instance."""

    CGROUP = auto()
    SESSION = auto()


@dataclass(frozen=True, slots=True)
class ContainmentStatus:
    """Which way is used, and what it cannot do here."""

    kind: Kind
    why: str
    """Why it is this one, in words."""
    folder: str = ""
    """The directory of the cells; empty if there is none."""
    controllers: tuple[str, ...] = ()
    """Those of the kernel that reach the cells."""
    controllers_missing: str = ""
    """Why others that the machine has do not; empty if all do."""
    limits: InstanceLimits = field(default_factory=InstanceLimits)
    """Of each instance that is created."""
    limits_refused: Mapping[str, str] = field(default_factory=dict)
    """Why the last instance goes without some of them, by the kernel's name."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """How often a cell could not be made, by reason."""


@dataclass(frozen=True, slots=True)
class CellMetadata:
    """What is written on a cell, so that its instance can be taken over when the journal is lost."""

    name: str
    uuid: str
    recovery_metadata: str
    """See `core.adoption.recovery_metadata`."""
    command: tuple[str, ...]


class Cell(Protocol):
    """Holds the processes of one instance: the leader, with which it began, and all that these started."""

    @property
    def entrance(self) -> int | None:
        """Descriptor of the directory of its cgroup, in which its processes have to start.

        None if they may start anywhere. It is the cell's, and closed with it.
        """

    def led_by(self, identity: Identity, pidfd: int) -> None:
        """Get to know the leader, which was started here or is taken over; called once.

        Args:
            identity: which process it is.
            pidfd: its pidfd, which stays open as long as the leader lives.
        """

    def prepare_end(self) -> None:
        """Note that the leader was sent a signal, and may end: last chance to see what it has started."""

    def members(self) -> Iterable[int]:
        """Yield the PIDs of those that live, the likeliest to listen on a port first.

        Raises:
            OSError: if they cannot be told.
        """

    def excludes(self, pid: int) -> bool:
        """Return whether a process is certainly no member.

        Raises:
            OSError: if that cannot be told.
        """

    def discard(self) -> None:
        """Remove it before anything has entered; what has not entered yet never will."""

    async def end(self) -> str | None:
        """Kill every member until none is left, or until a timeout, and remove the cell.

        May be called again if something remains.

        Returns:
            None if nothing is left, else what remains, in words.
        """

    def killed_for_memory(self) -> str:
        """Return in words for which limit the kernel has killed a member; empty if it has not."""

    def close(self) -> None:
        """Let go of what is open for it; its members live on."""


class Containment(Protocol):
    """Makes cells, and finds those of earlier daemons."""

    def status(self) -> ContainmentStatus:
        """Return which of the two it is, and how it fares."""

    def create(self, metadata: CellMetadata) -> Cell:
        """Make the cell of a new instance, before its process is started.

        Raises:
            ResourceExhaustedError: if there is none to be had; the message says why, and what to do.
        """

    def take_over(self, uuid: str, identity: Identity) -> Cell:
        """Return the cell of an instance of an earlier daemon; without one, its processes are moved to one.

        Args:
            uuid: of the instance.
            identity: of its leader, which may have ended.
        """

    def around(self, leader: int) -> Cell | None:
        """Return the cell of the leader with this PID; None if it has none."""

    async def find(self, *, thorough: bool) -> Findings:
        """Return the leaders in the cells that daemons with this state directory have made.

        Cells without members are removed: what was about to enter one fails, and executes nothing.

        Args:
            thorough: look for processes without a cell, too, as daemons without containment have left them.
        """

    async def usage(self, leaders: Collection[int]) -> Mapping[int, Usage]:
        """Look at what instances use now; nothing is sampled at other times.

        Args:
            leaders: the PIDs of their leaders, by which the answer has them; those that are not known, or of
                which nothing can be read, are left out.
        """

    def drain(self) -> None:
        """Prepare for the end: no instance will be created any more."""

    async def end_strays(self) -> None:
        """End what instances have left behind, once none of them is left."""

    def close(self) -> None:
        """Let go of everything that is open; the instances live on."""
