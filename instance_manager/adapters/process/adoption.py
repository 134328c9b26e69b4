"""Living processes that an earlier daemon has started: found, verified and adopted.

They are not children of this daemon. Their end is an event on the pidfd as usual, but their exit status goes
to their parent: the guard, which records it before it reaps the process.
"""

import asyncio
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.process import handles, proc
from instance_manager.adapters.process.census import Slices
from instance_manager.adapters.process.child import PidfdProcess
from instance_manager.adapters.process.descendants import DescendantReaper
from instance_manager.adapters.process.leaders import Leader, boot_ticks
from instance_manager.adapters.process.reading import BoundedReader
from instance_manager.adapters.process.unsure import UnsureProcess
from instance_manager.app.interfaces import Adoptable, Child, Findings, Unclear
from instance_manager.core.adoption import UNKNOWN_EXIT
from instance_manager.core.attribution import Liveness, Verdict, judge
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract

log = structlog.get_logger(__name__)

_RECORD_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to read the record of a process that has just ended."""
_SETTLE_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds between looks at processes that are in the middle of an execve and show no environment."""
_SIGHTING_INTERVAL = 1.0
"""Seconds between looks at which adopted processes live."""
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
        self._unsure: set[UnsureProcess] = set()
        self._sighting: asyncio.TimerHandle | None = None
        self._reader = BoundedReader()
        # In all processes, not only the guard's children: those of an earlier guard are init's.
        self.descendants = DescendantReaper(self._reader, parent=lambda: guard)

    async def find(self) -> Findings:
        """Return the living processes that daemons with this owner have started themselves.

        Their descendants have the same environment. But the process itself is a session leader, and older
        than its descendants, so the oldest session leader is taken.
        """
        try:
            candidates, unclear = await self._session_leaders()
        except proc.UnreadableError as error:
            return Findings((), (Unclear(None, str(error)),))
        oldest: dict[str, Adoptable] = {}
        for delay in (*_SETTLE_DELAYS, None):
            read = await self._reader.read(tuple(candidates), self._look_at)
            for pid, found in read.items():
                identity = Identity(pid, candidates[pid].start_time)
                if isinstance(found, proc.UnreadableError):
                    if found.passing and delay is not None:
                        continue
                    if not isinstance(found, proc.OverwrittenError) or self._is_guards(candidates[pid]):
                        unclear.append(Unclear(identity, str(found)))
                elif found is not None and identity.start_time == found.identity.start_time:
                    known = oldest.get(found.uuid)
                    if known is None or identity.start_time < known.identity.start_time:
                        oldest[found.uuid] = found
                del candidates[pid]
            if not candidates or delay is None:
                break
            await asyncio.sleep(delay)
        return Findings(tuple(oldest.values()), tuple(unclear))

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
        return LeftoverDescendants(identity, uuid, self.descendants)

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
        if self._sighting is not None:
            self._sighting.cancel()
        self.descendants.close()
        for process in self._adopted:
            process.close()
        for unsure in self._unsure:
            unsure.close()
        self._adopted.clear()
        self._unsure.clear()

    def drain(self) -> None:
        """Prepare for the end, see `DescendantReaper.drain`."""
        self.descendants.drain()

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
        process = AdoptedProcess(pidfd, Leader(identity, uuid), adopter=self, on_exit=on_exit)
        self._adopted.add(process)
        if self._sighting is None:
            self._sight()
        else:
            process.sighted()
        return process

    def _sight(self) -> None:
        """Note which adopted processes live: until now, the numbers of their sessions were their own."""
        self._sighting = asyncio.get_running_loop().call_later(_SIGHTING_INTERVAL, self._sight)
        poll = select.poll()
        for process in self._adopted:
            poll.register(process.descriptor, select.POLLIN)
        ended = {descriptor for descriptor, _ in poll.poll(0)}
        for process in self._adopted:
            if process.descriptor not in ended:
                process.sighted()

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

    def _is_guards(self, stat: proc.Stat) -> bool:
        return self._guard is not None and stat.parent == self._guard

    async def _session_leaders(self) -> tuple[dict[int, proc.Stat], list[Unclear]]:
        """Return the processes of this user that lead a session, and those that may be some."""
        leaders, unclear, slices = {}, [], Slices()
        for pid in proc.all_processes():
            await slices.pause()
            try:
                stat = proc.read_stat(pid)
                if stat is None or stat.ended or stat.kernel_thread or stat.session != pid:
                    continue
                # Anybody can give a process such an environment; only those of our own user are trusted.
                if pid != os.getpid() and proc.read_user(pid) == os.getuid():
                    leaders[pid] = stat
            except proc.UnreadableError as error:
                unclear.append(Unclear(None, str(error)))
        return leaders, unclear

    def _look_at(self, pid: int) -> Adoptable | None:
        """Return what a process has of an instance, None if it is none. This can hang.

        Raises:
            proc.UnreadableError: if that cannot be read.
        """
        environment = proc.read_environment(pid)
        uuid = environment.get(contract.UUID_VARIABLE, "")
        if environment.get(contract.OWNER_VARIABLE) != self._owner or uuid == contract.NO_INSTANCE:
            return None
        command = proc.read_command(pid)
        stat = proc.read_stat(pid)
        if stat is None:
            return None
        log.debug("adoptable", pid=pid, uuid=uuid)
        return Adoptable(
            name=environment.get(contract.NAME_VARIABLE, ""),
            uuid=uuid,
            recovery_metadata=environment.get(contract.RECOVERY_METADATA_VARIABLE, ""),
            command=command,
            identity=Identity(pid, stat.start_time),
            age=time.clock_gettime(time.CLOCK_BOOTTIME) - stat.start_time / _TICKS,
        )


class AdoptedProcess(PidfdProcess):
    """A process started by an earlier daemon; implements `app.interfaces.Child`."""

    def __init__(
        self,
        pidfd: int,
        leader: Leader,
        *,
        adopter: OsProcessAdopter,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        super().__init__(pidfd, leader, adopter.descendants)
        self._on_exit = on_exit
        self._adopter = adopter

    def sighted(self) -> None:
        """Note that it lives."""
        self._leader.alive_until = boot_ticks()

    def _on_end(self) -> None:
        self.close()
        self._adopter.forget(self)
        self._adopter.report_end(self.identity, self._uuid, self._on_exit)


class LeftoverDescendants:
    """What outlived a process that ended before it could be adopted; implements `app.interfaces.Child`."""

    def __init__(self, identity: Identity, uuid: str, descendants: DescendantReaper) -> None:
        self.identity = identity
        self._leader = Leader(identity, uuid)
        self._descendants = descendants

    def signal(self, name: str, *, session: bool) -> None:
        """Do nothing: the process has ended."""

    def describe(self) -> str:
        """Return in words what the process is doing."""
        return proc.describe(self.identity.pid)

    async def end_tree(self) -> str | None:
        """Kill the descendants until none is left, or until the timeout."""
        return await self._descendants.end(self._leader)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
