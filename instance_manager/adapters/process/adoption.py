"""Living processes that an earlier daemon has started: found, verified and adopted.

They are not children of this daemon. Their end is an event on the pidfd as usual, but their exit status goes
to their parent: the guard, which records it before it reaps the process.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.process import proc
from instance_manager.adapters.process.child import PidfdProcess
from instance_manager.adapters.process.descendants import AdoptedDescendantReaper
from instance_manager.app.interfaces import Adoptable
from instance_manager.core.adoption import UNKNOWN_EXIT
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract

log = structlog.get_logger(__name__)

_RECORD_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to read the record of a process that has just ended."""
_SETTLES_WITHIN = 1.0
"""Seconds that a process may be in the middle of an execve, when it shows no environment."""
_SETTLE_DELAY = 0.001
_TICKS = os.sysconf("SC_CLK_TCK")


class OsProcessAdopter:
    """Implements `app.interfaces.ProcessAdopter`."""

    def __init__(self, owner: str, exits: Path, guard: int | None) -> None:
        """Nothing is looked for yet.

        Args:
            owner: the state directory's value of `contract.OWNER_VARIABLE`.
            exits: the directory in which the guard writes exit statuses.
            guard: PID of the guard, None if there is none.
        """
        self._owner = owner
        self._exits = exits
        self._guard = guard
        self._adopted: set[AdoptedProcess] = set()
        self._seen: set[str] = set()
        """UUIDs of all processes that `find` has found living, descendants included."""
        self.descendants = AdoptedDescendantReaper(self._candidates)

    def find(self) -> list[Adoptable]:
        """Return the living processes that daemons with this owner have started themselves.

        Their descendants have the same environment. But the process itself is a session leader, and older
        than its descendants, so the oldest session leader is taken.
        """
        oldest: dict[str, Adoptable] = {}
        for adoptable in self._session_leaders():
            known = oldest.get(adoptable.uuid)
            if known is None or adoptable.identity.start_time < known.identity.start_time:
                oldest[adoptable.uuid] = adoptable
        return list(oldest.values())

    def adopt(
        self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]
    ) -> "AdoptedProcess | None":
        """Adopt exactly this process; None if it has ended."""
        try:
            pidfd = os.pidfd_open(identity.pid)
        except OSError as error:
            log.debug("not adopted", pid=identity.pid, uuid=uuid, reason=error.strerror)
            return None
        # Checked after the pidfd was opened: from now on the PID cannot become another's.
        if reason := _mismatch(identity, uuid):
            log.debug("not adopted", pid=identity.pid, uuid=uuid, reason=reason)
            os.close(pidfd)
            return None
        log.debug("adopted", pid=identity.pid, uuid=uuid)
        process = AdoptedProcess(pidfd, identity, uuid, adopter=self, on_exit=on_exit)
        self._adopted.add(process)
        return process

    def leftover_descendants(self, identity: Identity, uuid: str) -> "LeftoverDescendants | None":
        """Return a handle for the descendants that outlived a process, None if `find` has found none."""
        return LeftoverDescendants(identity, uuid, self.descendants) if uuid in self._seen else None

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

    def forget(self, process: "AdoptedProcess") -> None:
        """Note that an adopted process has ended."""
        self._adopted.discard(process)

    def close(self) -> None:
        """Close the pidfds of all processes and leave the processes alone."""
        self.descendants.close()
        for process in self._adopted:
            process.close()
        self._adopted.clear()

    def descriptors(self) -> set[int]:
        """Return the pidfds of the adopted processes."""
        return {process.descriptor for process in self._adopted}

    @property
    def guarded(self) -> bool:
        """Whether a guard records how processes end."""
        return self._guard is not None and os.getppid() == self._guard

    def _candidates(self) -> set[int]:
        """Return the PIDs of possible descendants of a process that has ended.

        They are children of the guard; without a guard, all processes in /proc are checked.
        """
        pids = proc.children_of(os.getppid()) if self.guarded else proc.all_processes()
        # Adopted processes are nobody's descendants: with many of them, looking at each takes long.
        return set(pids) - {process.identity.pid for process in self._adopted}

    def _session_leaders(self) -> Iterator[Adoptable]:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for pid in proc.all_processes():
            environment = proc.read_environment(pid)
            if not environment and (seen := _settled_provenance(pid)) and seen.uuid:
                environment = proc.read_environment(pid)
            if environment.get(contract.OWNER_VARIABLE) != self._owner or pid == os.getpid():
                continue
            uuid = environment.get(contract.UUID_VARIABLE, "")
            self._seen.add(uuid)
            stat = proc.read_stat(pid)
            if stat is None or stat.state == "Z" or stat.session != pid:
                reason = "it leads no session" if stat and stat.state != "Z" else "it has ended"
                log.debug("not adoptable", pid=pid, uuid=uuid, reason=reason)
                continue
            # Anybody can give a process such an environment; only those of our own user are trusted.
            if proc.read_user(pid) != os.getuid():
                log.debug("not adoptable", pid=pid, uuid=uuid, reason="it runs as another user")
                continue
            log.debug("adoptable", pid=pid, uuid=uuid)
            yield Adoptable(
                name=environment.get(contract.NAME_VARIABLE, ""),
                uuid=uuid,
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
        adopter: OsProcessAdopter,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        super().__init__(pidfd, identity, uuid, adopter.descendants, self._ended)
        self._on_exit = on_exit
        self._adopter = adopter

    def _ended(self) -> None:
        self.close()
        self._look_for_record(iter(_RECORD_DELAYS))

    def _look_for_record(self, delays: Iterator[float]) -> None:
        """Report the exit once the guard has recorded it; the guard is hardly ever late."""
        status = self._adopter.exit_status(self.identity)
        log.debug("exit record read", pid=self.identity.pid, uuid=self._uuid, status=status and str(status))
        delay = next(delays, None) if self._adopter.guarded else None
        if status is None and delay is not None:
            asyncio.get_running_loop().call_later(delay, self._look_for_record, delays)
        else:
            self._adopter.forget(self)
            self._on_exit(status or UNKNOWN_EXIT)


class LeftoverDescendants:
    """What outlived a process that ended before it could be adopted; implements `app.interfaces.Child`."""

    def __init__(self, identity: Identity, uuid: str, descendants: AdoptedDescendantReaper) -> None:
        self.identity = identity
        self._uuid = uuid
        self._descendants = descendants

    def signal(self, name: str, *, session: bool) -> None:
        """Do nothing: the process has ended."""

    def describe(self) -> str:
        """Return in words what the process is doing."""
        return proc.describe(self.identity.pid)

    async def end_tree(self) -> str | None:
        """Kill the descendants until none is left, or until the timeout."""
        return await self._descendants.end(self.identity, self._uuid, by_session=False)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _settled_provenance(pid: int) -> proc.Provenance | None:
    """Return where a process comes from, once it is not in the middle of an execve any more.

    Waits without the event loop: nothing is served yet while processes are adopted.
    """
    deadline = time.monotonic() + _SETTLES_WITHIN
    while (seen := proc.read_provenance(pid)) is not None:
        # A kernel thread shows no environment either, and is in no session.
        if seen.settled or seen.ended or not seen.session or time.monotonic() > deadline:
            return seen
        time.sleep(_SETTLE_DELAY)
    return None


def _mismatch(identity: Identity, uuid: str) -> str:
    """Return why a PID does not belong to this process (any more), empty if it does."""
    stat = proc.read_stat(identity.pid)
    if stat is None or stat.start_time != identity.start_time:
        return "another process has its PID"
    # A zombie shows no environment; its exit may still be recorded.
    if stat.state == "Z":
        return ""
    seen = _settled_provenance(identity.pid)
    return "" if seen and seen.uuid == uuid else "it has another UUID"
