"""The search for instances of earlier daemons, by what is in the environments of all processes."""

import asyncio
import os

import structlog

from instance_manager.adapters.process.slices import Slices
from instance_manager.app.interfaces import Adoptable, Findings, Unclear
from instance_manager.core.process import Identity
from instance_manager.platform import contract, proc
from instance_manager.platform.reading import BoundedReader

log = structlog.get_logger(__name__)

_SETTLE_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds between looks at processes that are in the middle of an execve and show no environment."""


async def find_marked(owner: str, guard: int | None = None, reader: BoundedReader | None = None) -> Findings:
    """Return the living processes that daemons with this owner have started themselves.

    Their descendants have the same environment. But the process itself is a session leader, and older
    than its descendants, so the oldest session leader is taken.

    Args:
        owner: the state directory's value of `contract.OWNER_VARIABLE`.
        guard: PID of the guard, which inherits instances; None if there is none.
        reader: reads the environments; a new one if there is none yet.
    """
    reader = reader or BoundedReader()
    try:
        candidates, unclear = await _session_leaders()
    except proc.UnreadableError as error:
        return Findings((), (Unclear(None, str(error)),))
    oldest: dict[str, Adoptable] = {}
    for delay in (*_SETTLE_DELAYS, None):
        read = await reader.read(tuple(candidates), lambda pid: _look_at(pid, owner))
        for pid, found in read.items():
            identity = Identity(pid, candidates[pid].start_time)
            if isinstance(found, proc.UnreadableError):
                if found.passing and delay is not None:
                    continue
                if not isinstance(found, proc.OverwrittenError) or candidates[pid].parent == guard:
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


async def _session_leaders() -> tuple[dict[int, proc.Stat], list[Unclear]]:
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


def _look_at(pid: int, owner: str) -> Adoptable | None:
    """Return what a process has of an instance, None if it is none. This can hang.

    Raises:
        proc.UnreadableError: if that cannot be read.
    """
    environment = proc.read_environment(pid)
    uuid = environment.get(contract.UUID_VARIABLE, "")
    if environment.get(contract.OWNER_VARIABLE) != owner or uuid == contract.NO_INSTANCE:
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
        age=stat.age,
    )
