"""What a cell tells of the instance that an earlier daemon has started in it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import structlog

from instance_manager.adapters.cgroup.cell import VERSION
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.app.interfaces import Adoptable, Unclear
from instance_manager.core.process import Identity
from instance_manager.platform import proc

log = structlog.get_logger(__name__)


def look_at(cell: Folder, pids: Sequence[int]) -> Adoptable | Unclear:
    """Return the leader in a cell that is not empty; the processes themselves are asked nothing.

    Args:
        cell: the cgroup.
        pids: its members.
    """
    try:
        leaders = dict(_session_leaders(pids))
    except proc.UnreadableError as error:
        return Unclear(None, f"its processes cannot be looked at: {error}", cell.name)
    if not leaders:
        return Unclear(None, "its cgroup has no leader any more", cell.name)
    written = _written_leader(cell)
    as_written = written in leaders
    # Of several, the oldest: the others descend from it, or from one that has ended.
    leader = written if written in leaders else min(leaders, key=lambda each: each.start_time)
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
            age=leaders[leader].age,
        )
    except UnicodeDecodeError:
        return Unclear(leader, "what is written on its cgroup is damaged", cell.name)
    log.debug("adoptable", pid=leader.pid, uuid=cell.name, as_written=as_written)
    return found


def lives(identity: Identity) -> bool:
    """Return whether a process lives, as far as that can be told."""
    with suppress(proc.UnreadableError):
        stat = proc.read_stat(identity.pid)
        return stat is not None and stat.start_time == identity.start_time and not stat.ended
    return False


def _session_leaders(pids: Iterable[int]) -> Iterator[tuple[Identity, proc.Stat]]:
    """Yield those of processes that lead sessions.

    Raises:
        proc.UnreadableError: if that cannot be read.
    """
    for pid in pids:
        stat = proc.read_stat(pid)
        if stat is not None and stat.session == pid:
            yield Identity(pid, stat.start_time), stat


def _written_leader(cell: Folder) -> Identity | None:
    try:
        pid, start_time = map(int, (cell.attribute("leader") or b"").split())
    except ValueError:
        return None
    return Identity(pid, start_time)
