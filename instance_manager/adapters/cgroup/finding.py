"""What a cell tells of the instance that an earlier daemon has started in it."""

import os
import time
from collections.abc import Sequence

import structlog

from instance_manager.adapters.cgroup.cell import VERSION
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.cgroup.processes import read_stat
from instance_manager.app.interfaces import Adoptable, Unclear
from instance_manager.core.process import Identity

log = structlog.get_logger(__name__)

_TICKS = os.sysconf("SC_CLK_TCK")


def look_at(cell: Folder, pids: Sequence[int]) -> Adoptable | Unclear:
    """Return the leader in a cell that is not empty; the processes themselves are asked nothing.

    Args:
        cell: the cgroup.
        pids: its members.
    """
    leaders = [identity for identity in map(_session_leader, pids) if identity]
    if not leaders:
        return Unclear(None, "its cgroup has no leader any more", cell.name)
    written = _written_leader(cell)
    as_written = written in leaders
    # Of several, the oldest: the others descend from it, or from one that has ended.
    leader = written if written and as_written else min(leaders, key=lambda each: each.start_time)
    version = cell.attribute("version")
    if version != VERSION:
        reason = "nothing can be read of what is written on its cgroup"
        if version is not None:
            reason = f"its cgroup is of a newer version ({version.decode('ascii', 'replace')})"
        return Unclear(leader, reason, cell.name)
    name, recovery, command = map(cell.attribute, ("name", "recovery", "command"))
    try:
        found = Adoptable(
            name=(name or b"").decode(),
            uuid=cell.name,
            recovery_metadata=(recovery or b"").decode(),
            command=tuple(word.decode() for word in command.split(b"\0")) if command and as_written else (),
            identity=leader,
            age=time.clock_gettime(time.CLOCK_BOOTTIME) - leader.start_time / _TICKS,
        )
    except UnicodeDecodeError:
        return Unclear(leader, "what is written on its cgroup is damaged", cell.name)
    log.debug("adoptable", pid=leader.pid, uuid=cell.name, as_written=as_written)
    return found


def lives(identity: Identity) -> bool:
    """Return whether a process lives, as far as /proc shows it."""
    stat = read_stat(identity.pid)
    return stat is not None and stat.start_time == identity.start_time and stat.state not in "ZX"


def _session_leader(pid: int) -> Identity | None:
    stat = read_stat(pid)
    return Identity(pid, stat.start_time) if stat and stat.session == pid else None


def _written_leader(cell: Folder) -> Identity | None:
    try:
        pid, start_time = map(int, (cell.attribute("leader") or b"").split())
    except ValueError:
        return None
    return Identity(pid, start_time)
