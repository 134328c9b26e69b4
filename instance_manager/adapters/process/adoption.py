"""Living processes that an earlier daemon has started: found, verified and taken over.

They are not children of this daemon. Their end is an event on the pidfd as usual, but their exit status goes
to their parent: the guard, which records it before it reaps the process.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from instance_manager.adapters.process import proc
from instance_manager.adapters.process.child import PidfdProcess
from instance_manager.adapters.process.remnants import Remnants
from instance_manager.app.interfaces import Adoptable
from instance_manager.core.adoption import UNKNOWN_EXIT
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract

_RECORD_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to read the record of a process that has just ended."""
_SETTLES_WITHIN = 1.0
"""Seconds that a process may be in the middle of an execve, when it shows no environment."""
_SETTLE_DELAY = 0.001
_TICKS = os.sysconf("SC_CLK_TCK")


class OsProcessAdopter:
    """Implements `app.interfaces.ProcessAdopter`."""

    def __init__(self, owner: str, exits: Path, guard: int | None) -> None:
        """Look for processes with this mark.

        Args:
            owner: the mark of the state directory.
            exits: the directory in which the guard writes exit statuses.
            guard: PID of the guard, None if there is none.
        """
        self._owner = owner
        self._exits = exits
        self._guard = guard
        self._adopted: set[AdoptedProcess] = set()
        self._carried: set[str] = set()
        """The UUIDs of all that `find` has found living, descendants among them."""

    def find(self) -> list[Adoptable]:
        """Return the living processes that daemons with this mark have started themselves.

        Their descendants have the same environment. But the process itself is a session leader, and older
        than its descendants, so the oldest session leader is taken.
        """
        oldest: dict[str, Adoptable] = {}
        for adoptable in self._carriers():
            known = oldest.get(adoptable.uuid)
            if known is None or adoptable.identity.start_time < known.identity.start_time:
                oldest[adoptable.uuid] = adoptable
        return list(oldest.values())

    def adopt(
        self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]
    ) -> "AdoptedProcess | None":
        """Take over exactly this process; None if it has ended.

        Its identity is checked after the pidfd was opened, so that it cannot be another process any more.
        """
        try:
            pidfd = os.pidfd_open(identity.pid)
        except OSError:
            return None
        stat = proc.read_stat(identity.pid)
        if stat is None or stat.start_time != identity.start_time:
            os.close(pidfd)
            return None
        # One that has ended and is not cleared away shows no environment; how it ended may be written yet.
        if stat.state != "Z" and not _carries(identity.pid, uuid):
            os.close(pidfd)
            return None

        def ended(process: AdoptedProcess, status: ExitStatus) -> None:
            self._adopted.discard(process)
            on_exit(status)

        process = AdoptedProcess(pidfd, identity, uuid, on_exit=ended, adopter=self)
        self._adopted.add(process)
        return process

    def leftover_descendants(self, identity: Identity, uuid: str) -> Remnants | None:
        """Return what a process that has ended has left behind, None if `find` has found nothing of it."""
        if uuid not in self._carried:
            return None
        return Remnants(identity, uuid, self.candidates, by_session=False)

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

    def close(self) -> None:
        """Close the pidfds of all processes and leave the processes alone."""
        for process in self._adopted:
            process.close()
        self._adopted.clear()

    def descriptors(self) -> set[int]:
        """Return the pidfds of the processes that were taken over."""
        return {process.descriptor for process in self._adopted}

    @property
    def guarded(self) -> bool:
        """Whether a guard records how processes end."""
        return self._guard is not None and os.getppid() == self._guard

    def candidates(self) -> list[int]:
        """Return the PIDs of possible descendants of a process that has ended.

        They are children of the guard; without a guard, all processes in /proc are checked.
        """
        pids = proc.children_of(os.getppid()) if self.guarded else proc.all_processes()
        # Those that were taken over are nobody's descendants: with many of them, looking at each took long.
        return list(set(pids) - {process.identity.pid for process in self._adopted})

    def _carriers(self) -> Iterator[Adoptable]:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for pid in proc.all_processes():
            environment = proc.read_environment(pid)
            if not environment and (marks := _settled_marks(pid)) and marks.uuid:
                environment = proc.read_environment(pid)
            if environment.get(contract.OWNER_VARIABLE) != self._owner or pid == os.getpid():
                continue
            self._carried.add(environment.get(contract.UUID_VARIABLE, ""))
            stat = proc.read_stat(pid)
            if stat is None or stat.state == "Z" or stat.session != pid:
                continue
            # Anybody can give a process such an environment; only those of our own user are trusted.
            if proc.read_user(pid) != os.getuid():
                continue
            yield Adoptable(
                name=environment.get(contract.NAME_VARIABLE, ""),
                uuid=environment.get(contract.UUID_VARIABLE, ""),
                recovery_metadata=environment.get(contract.RECOVERY_METADATA_VARIABLE, ""),
                command=proc.read_command(pid),
                identity=Identity(pid, stat.start_time),
                age=now - stat.start_time / _TICKS,
            )


class AdoptedProcess(PidfdProcess):
    """A process started by an earlier daemon; implements `app.interfaces.Child`."""

    def __init__(
        self,
        pidfd: int,
        identity: Identity,
        uuid: str,
        *,
        on_exit: Callable[["AdoptedProcess", ExitStatus], None],
        adopter: OsProcessAdopter,
    ) -> None:
        super().__init__(pidfd, identity, self._ended)
        self._uuid = uuid
        self._on_exit = on_exit
        self._survivors = adopter

    async def end_tree(self) -> str | None:
        """Kill what the process left behind, until nothing is left, or until the timeout."""
        candidates = self._survivors.candidates
        return await Remnants(self.identity, self._uuid, candidates, by_session=True).end_tree()

    def _ended(self) -> None:
        self.close()
        self._look_for_record(iter(_RECORD_DELAYS))

    def _look_for_record(self, delays: Iterator[float]) -> None:
        """Report the exit once the guard has recorded it; the guard is hardly ever late."""
        status = self._survivors.exit_status(self.identity)
        delay = next(delays, None) if self._survivors.guarded else None
        if status is None and delay is not None:
            asyncio.get_running_loop().call_later(delay, self._look_for_record, delays)
        else:
            self._on_exit(self, status or UNKNOWN_EXIT)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _settled_marks(pid: int) -> proc.Marks | None:
    """Return what tells where a process comes from, once it is not in the middle of an execve any more.

    Waits without the event loop: nothing is served yet while processes are taken over.
    """
    deadline = time.monotonic() + _SETTLES_WITHIN
    while (marks := proc.read_marks(pid)) is not None:
        # A kernel thread shows no environment either, and is in no session.
        if marks.settled or marks.ended or not marks.session or time.monotonic() > deadline:
            return marks
        time.sleep(_SETTLE_DELAY)
    return None


def _carries(pid: int, uuid: str) -> bool:
    marks = _settled_marks(pid)
    return marks is not None and marks.uuid == uuid
