"""Programs that an earlier daemon ran for itself, and that have outlived it: nobody waits for them any more.

One that looks at a backup may hang for ever, with the credentials of the backup in its environment.
"""

import os
import signal
from contextlib import suppress

import structlog

from instance_manager.adapters.process import handles
from instance_manager.adapters.process.slices import Slices
from instance_manager.platform import contract, proc
from instance_manager.platform.proc import exists
from instance_manager.platform.reading import BoundedReader

log = structlog.get_logger(__name__)

_ROUNDS = 10
"""Looks for more, as long as each has found some."""


async def end_own_programs(owner: str) -> None:
    """End what daemons with this owner have run for themselves; this one must not have run anything yet.

    Args:
        owner: the state directory's value of `contract.OWNER_VARIABLE`.
    """
    reader, ended = BoundedReader(), set[tuple[int, int]]()
    for _ in range(_ROUNDS):
        found = {
            (pid, stat.start_time): stat
            for pid, stat in (await _candidates(owner, reader)).items()
            if (pid, stat.start_time) not in ended
        }
        for (pid, start_time), stat in found.items():
            if _kill(pid, start_time):
                log.warning("ended what an earlier daemon had run for itself", left=pid, command=stat.command)
        if not found:
            break
        ended |= found.keys()


async def _candidates(owner: str, reader: BoundedReader) -> dict[int, proc.Stat]:
    """Return what is marked so, among processes of this user in groups of their own.

    Instances lead sessions, and so does what has become independent of the program that started it.
    """
    grouped, slices = {}, Slices()
    with suppress(proc.UnreadableError):
        for pid in proc.all_processes():
            await slices.pause()
            with suppress(proc.UnreadableError, ProcessLookupError, PermissionError):
                stat = proc.read_stat(pid)
                if stat is None or stat.ended or stat.kernel_thread or os.getpgid(pid) == stat.session:
                    continue
                if pid != os.getpid() and proc.read_user(pid) == os.getuid():
                    grouped[pid] = stat
    read = await reader.read(tuple(grouped), proc.read_environment)
    return {
        pid: grouped[pid]
        for pid, told in read.items()
        if isinstance(told, dict)
        and told.get(contract.OWNER_VARIABLE) == owner
        and told.get(contract.UUID_VARIABLE) == contract.NO_INSTANCE
    }


def _kill(pid: int, start_time: int) -> bool:
    """Kill exactly this process; False if it has ended."""
    with suppress(proc.UnreadableError):
        pidfd = handles.open_pidfd(pid)
        if pidfd is None:
            return False
        try:
            # Looked at after the pidfd was opened: from now on the PID cannot become another's.
            if exists((pid, start_time)):
                handles.send(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False
