"""All cells of the daemons with one state directory: made, found again, and taken over."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.cgroup.cell import VERSION, CgroupCell, remove_if_empty
from instance_manager.adapters.cgroup.events import EventWatcher
from instance_manager.adapters.cgroup.folder import folders_in, open_folder
from instance_manager.adapters.cgroup.xattrs import get_attribute
from instance_manager.app.containment import Cell, CellMetadata, Containment, Kind
from instance_manager.app.interfaces import Adoptable, Findings, Unclear
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import Identity
from instance_manager.platform import proc

log = structlog.get_logger(__name__)

_WHAT_TO_DO = {
    errno.EROFS: "mount it writable again",
    errno.EAGAIN: "raise cgroup.max.descendants there and above, or delete instances",
    errno.ENOSPC: "free memory of the machine, or delete instances",
    errno.ENOMEM: "free memory of the machine, or delete instances",
    errno.EMFILE: "raise the limit of open files, or delete instances",
}
_RESTART = "look at it, and restart the instance manager when it is there again"


def owner_mark(owner: str) -> str:
    """Return the name of the directory of those cells, from the state directory's mark of processes."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


class CgroupContainment:
    """Implements `app.containment.Containment`.

    `ROOT/OWNER/UUID` is the cell of an instance; cells of other owners are neither read nor touched.
    """

    kind = Kind.CGROUP

    def __init__(self, root: Path, owner: str, without: Containment) -> None:
        """Open the directory of this owner.

        Args:
            root: below which it is made.
            owner: the state directory's value of `contract.OWNER_VARIABLE`.
            without: finds and ends what daemons without cells have started.

        Raises:
            OSError: if it cannot be made.
        """
        self.why = f"cells can be made in {root}"
        self.failures: Counter[str] = Counter()
        """How often a cell could not be made, by reason."""
        self._path = root / owner_mark(owner)
        self._without = without
        self._watcher = EventWatcher()
        self._leaders: dict[int, CgroupCell] = {}
        """Cells by the PIDs of their leaders."""
        self._known: dict[str, Adoptable] = {}
        """What was found without a cell, by UUID."""
        self.folder = str(self._path)
        self._path.mkdir(exist_ok=True)
        self._folder = open_folder(self._path)

    def create(self, metadata: CellMetadata) -> CgroupCell:
        """Make the cell of a new instance."""
        try:
            os.mkdir(metadata.uuid, dir_fd=self._folder)
            try:
                cell = self._opened(metadata.uuid)
                cell.prepare(metadata)
            except OSError:
                os.rmdir(metadata.uuid, dir_fd=self._folder)
                raise
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            self.failures[reason] += 1
            if self.failures[reason] == 1:
                log.warning("no cell can be made", folder=str(self._path), reason=reason)
            raise ResourceExhaustedError(
                f"cannot start {metadata.name}: no cgroup can be made for it in {self._path}: {reason}; "
                f"{_WHAT_TO_DO.get(error.errno or 0, _RESTART)}"
            ) from error
        return cell

    def take_over(self, uuid: str, identity: Identity) -> Cell:
        """Return the cell of an instance of an earlier daemon; without one, it is moved to one."""
        try:
            return self._opened(uuid)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.warning("cell not opened", uuid=uuid, reason=error.strerror)
        former = self._without.take_over(uuid, identity)
        if not _lives(identity):
            return former
        known = self._known.pop(uuid, None)
        metadata = CellMetadata(
            known.name if known else "",
            uuid,
            known.recovery_metadata if known else "",
            known.command if known else (),
        )
        try:
            cell = self.create(metadata)
        except ResourceExhaustedError as error:
            log.warning("an instance goes on without a cell", uuid=uuid, reason=str(error))
            return former
        try:
            _move(former, cell)
        except OSError as error:
            log.warning("an instance goes on without a cell", uuid=uuid, reason=error.strerror)
            cell.discard()
            return former
        log.info("moved to a cell", uuid=uuid, pid=identity.pid)
        return cell

    def around(self, leader: int) -> Cell | None:
        """Return the cell of a leader."""
        return self._leaders.get(leader) or self._without.around(leader)

    async def find(self, *, thorough: bool) -> Findings:
        """Return the leaders in the cells of this owner; `thorough`, also those that have none."""
        adoptable: dict[str, Adoptable] = {}
        unclear: list[Unclear] = []
        contained: set[int] = set()
        try:
            names = folders_in(self._folder)
        except OSError as error:
            return Findings((), (Unclear(None, f"{self._path} cannot be listed: {error.strerror}"),))
        for uuid in names:
            try:
                if remove_if_empty(self._folder, uuid):
                    log.info("empty cell removed", uuid=uuid)
                    continue
                found = self._look_at(uuid, contained)
            except (OSError, proc.UnreadableError) as error:
                unclear.append(Unclear(None, f"its cgroup cannot be looked at: {error}", uuid))
                continue
            if isinstance(found, Unclear):
                unclear.append(found)
            elif found is not None:
                adoptable[uuid] = found
        if thorough:
            outside = await self._without.find(thorough=True)
            self._known = {each.uuid: each for each in outside.adoptable if each.uuid not in adoptable}
            adoptable |= self._known
            unclear += [
                each for each in outside.unclear if not each.identity or each.identity.pid not in contained
            ]
        return Findings(tuple(adoptable.values()), tuple(unclear))

    def others(self) -> list[tuple[str, str]]:
        """Return owner and UUID of each cell beside ours that has the form of one."""
        found = []
        with suppress(OSError):
            for folder in self._path.parent.iterdir():
                if folder != self._path and folder.is_dir() and len(folder.name) == len(self._path.name):
                    found += [(folder.name, cell.name) for cell in folder.iterdir() if cell.is_dir()]
        return found

    def drain(self) -> None:
        """Prepare for the end."""
        self._without.drain()

    async def end_strays(self) -> None:
        """End what is left of instances without cells."""
        await self._without.end_strays()

    def close(self) -> None:
        """Let go of everything that is open, and remove the directory if no cell is in it."""
        self._watcher.close()
        self._without.close()
        os.close(self._folder)
        with suppress(OSError):
            self._path.rmdir()

    def _opened(self, uuid: str) -> CgroupCell:
        return CgroupCell(self._folder, uuid, self._watcher, self._leaders)

    def _look_at(self, uuid: str, contained: set[int]) -> Adoptable | Unclear | None:
        """Return the leader in a cell; None if it has become empty.

        Raises:
            OSError: if it cannot be looked at.
            proc.UnreadableError: if its members cannot be.
        """
        cell = self._opened(uuid)
        try:
            pids = list(cell.members())
            contained.update(pids)
            leaders = dict(_session_leaders(pids))
            if not leaders:
                return Unclear(None, "its cgroup has no leader any more", uuid) if pids else None
            written = cell.leader()
            as_written = written in leaders
            # Of several, the oldest: the others descend from it, or from one that has ended.
            leader = written if written in leaders else min(leaders, key=lambda each: each.start_time)
            if get_attribute(cell.folder, "version") != VERSION:
                return Unclear(leader, "nothing is written on its cgroup", uuid)
            log.debug("adoptable", pid=leader.pid, uuid=uuid, as_written=as_written)
            command = (get_attribute(cell.folder, "command") or b"").split(b"\0") if as_written else ()
            return Adoptable(
                name=(get_attribute(cell.folder, "name") or b"").decode(),
                uuid=uuid,
                recovery_metadata=(get_attribute(cell.folder, "recovery") or b"").decode(),
                command=tuple(word.decode() for word in command),
                identity=leader,
                age=leaders[leader].age,
            )
        finally:
            cell.close()


def _move(former: Cell, cell: CgroupCell) -> None:
    """Move the members of a cell to another one, until none is left that was started meanwhile.

    Raises:
        OSError: if that is impossible.
    """
    moved: set[int] = set()
    while fresh := set(former.members()) - moved:
        for pid in fresh:
            cell.admit(pid)
        moved |= fresh


def _session_leaders(pids: Iterable[int]) -> Iterator[tuple[Identity, proc.Stat]]:
    """Yield those of processes that lead sessions.

    Raises:
        proc.UnreadableError: if that cannot be read.
    """
    for pid in pids:
        stat = proc.read_stat(pid)
        if stat is not None and stat.session == pid:
            yield Identity(pid, stat.start_time), stat


def _lives(identity: Identity) -> bool:
    """Return whether a process lives, as far as that can be told."""
    with suppress(proc.UnreadableError):
        stat = proc.read_stat(identity.pid)
        return stat is not None and stat.start_time == identity.start_time and not stat.ended
    return False
