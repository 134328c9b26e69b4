"""Living processes that an earlier daemon has started: verified and adopted.

They are not children of this daemon. Their end is an event on the pidfd as usual, but their exit status goes
to their parent: the guard, which records it before it reaps the process.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from instance_manager.adapters.process import handles
from instance_manager.adapters.process.child import PidfdProcess
from instance_manager.adapters.process.unsure import UnsureProcess
from instance_manager.app.containment import Cell, Containment
from instance_manager.app.interfaces import Child
from instance_manager.core.adoption import UNKNOWN_EXIT
from instance_manager.core.attribution import Liveness, Verdict, judge
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract, proc

log = structlog.get_logger(__name__)

_RECORD_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to read the record of a process that has just ended."""


class OsProcessAdopter:
    """Implements `app.interfaces.ProcessAdopter`."""

    def __init__(self, exits: Path, guard: int | None, containment: Containment) -> None:
        """Nothing is taken over yet.

        Args:
            exits: the directory in which the guard writes exit statuses.
            guard: PID of the guard, None if there is none.
            containment: finds the instances, and has their cells.
        """
        self._exits = exits
        self._guard = guard
        self._containment = containment
        self.find = containment.find
        self._adopted: set[AdoptedProcess] = set()
        self._unsure: set[UnsureProcess] = set()

    def adopt(
        self,
        identity: Identity,
        uuid: str,
        on_exit: Callable[[ExitStatus], None],
        on_doubt: Callable[[str], None],
    ) -> Child | None:
        """Adopt exactly this process; None if it has certainly ended."""
        found = self.attempt(identity, uuid, on_exit)
        if not isinstance(found, Verdict):
            return found
        if found.liveness is Liveness.GONE:
            return None
        process = UnsureProcess(
            identity, uuid, found.reason, adopter=self, on_exit=on_exit, on_doubt=on_doubt
        )
        self._unsure.add(process)
        return process

    def attempt(
        self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]
    ) -> "AdoptedProcess | Verdict":
        """Adopt a process if it is certain that it lives; else return what is known."""
        evidence, pidfd = handles.gather(identity)
        verdict = judge(identity, evidence)
        log.debug("judged", pid=identity.pid, uuid=uuid, found=verdict.liveness, reason=verdict.reason)
        if pidfd is not None:
            if verdict.liveness is Liveness.ALIVE:
                return self._take(pidfd, identity, uuid, on_exit)
            os.close(pidfd)
        return verdict

    def leftover_descendants(self, identity: Identity, uuid: str) -> "LeftoverDescendants":
        """Return a handle for what may have outlived a process that has ended."""
        return LeftoverDescendants(identity, self._containment.take_over(uuid, identity))

    def exit_status(self, identity: Identity) -> ExitStatus | None:
        """Return how a process ended, from the guard's record `PID.STARTTIME`, and delete the record soon."""
        path = self._exits / contract.exit_record_name(identity.pid, identity.start_time)
        try:
            found = contract.parse_exit(path.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError):
            return None
        # Not before the caller has written it down, or a daemon that dies in between takes it along.
        asyncio.get_running_loop().call_soon(_remove, path)
        return ExitStatus(*found) if found else None

    def report_end(self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]) -> None:
        """Report an exit once the guard has recorded it; the guard is hardly ever late."""
        self._look_for_record(identity, uuid, on_exit, iter(_RECORD_DELAYS))

    def forget(self, process: "AdoptedProcess") -> None:
        """Note that an adopted process has ended."""
        self._adopted.discard(process)

    def settled(self, process: UnsureProcess) -> None:
        """Note that it is clear now whether a process lives."""
        self._unsure.discard(process)

    def close(self) -> None:
        """Close the pidfds of all processes and leave the processes alone."""
        for process in self._adopted:
            process.close()
            process.cell.close()
        for unsure in self._unsure:
            unsure.close()
        self._adopted.clear()
        self._unsure.clear()

    def descriptors(self) -> set[int]:
        """Return the pidfds of the adopted processes."""
        return {process.descriptor for process in self._adopted}

    @property
    def guarded(self) -> bool:
        """Whether a guard records how processes end."""
        return self._guard is not None and os.getppid() == self._guard

    def _take(
        self, pidfd: int, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]
    ) -> "AdoptedProcess":
        cell = self._containment.take_over(uuid, identity)
        process = AdoptedProcess(pidfd, identity, uuid, cell, adopter=self, on_exit=on_exit)
        self._adopted.add(process)
        return process

    def _look_for_record(
        self,
        identity: Identity,
        uuid: str,
        on_exit: Callable[[ExitStatus], None],
        delays: Iterator[float],
    ) -> None:
        status = self.exit_status(identity)
        log.debug("exit record read", pid=identity.pid, uuid=uuid, status=status and str(status))
        delay = next(delays, None) if self.guarded else None
        if status is None and delay is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(delay, self._look_for_record, identity, uuid, on_exit, delays)
        else:
            on_exit(status or UNKNOWN_EXIT)


class AdoptedProcess(PidfdProcess):
    """A process started by an earlier daemon; implements `app.interfaces.Child`."""

    def __init__(
        self,
        pidfd: int,
        identity: Identity,
        uuid: str,
        cell: Cell,
        *,
        adopter: OsProcessAdopter,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        super().__init__(pidfd, identity, uuid, cell)
        self._on_exit = on_exit
        self._adopter = adopter

    def _on_end(self) -> None:
        self.close()
        self._adopter.forget(self)
        self._adopter.report_end(self.identity, self._uuid, self._report)

    def _report(self, status: ExitStatus) -> None:
        self._on_exit(replace(status, cause=self.cell.killed_for_memory()))


class LeftoverDescendants:
    """What outlived a process that ended before it could be adopted; implements `app.interfaces.Child`."""

    def __init__(self, identity: Identity, cell: Cell) -> None:
        self.identity = identity
        self._cell = cell

    def signal(self, name: str, *, session: bool) -> None:
        """Do nothing: the process has ended."""

    def describe(self) -> str:
        """Return in words what the process is doing."""
        return proc.describe(self.identity.pid)

    async def end_tree(self) -> str | None:
        """Kill the descendants until none is left, or until the timeout."""
        remains = await self._cell.end()
        if remains is None:
            self._cell.close()
        return remains

    @property
    def launching(self) -> bool:
        """Whether it is not known yet that it executes its program: an earlier daemon has launched it."""
        return False

    async def launched(self) -> str | None:
        """Return at once."""
        return None


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
