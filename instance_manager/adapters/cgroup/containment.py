"""All cells of the daemons with one state directory: made, found again, and taken over."""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.cgroup.cell import CgroupCell
from instance_manager.adapters.cgroup.controllers import WANTED, Controllers
from instance_manager.adapters.cgroup.events import EventWatcher
from instance_manager.adapters.cgroup.finding import lives, look_at
from instance_manager.adapters.cgroup.hierarchy import UnusableError
from instance_manager.adapters.cgroup.limits import limit, limit_again
from instance_manager.adapters.cgroup.owner import Owner
from instance_manager.adapters.cgroup.usage import usage_of_cells
from instance_manager.app.containment import Cell, CellMetadata, Containment, ContainmentStatus, Kind
from instance_manager.app.interfaces import Adoptable, Findings, Unclear
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.limits import InstanceLimits
from instance_manager.core.process import Identity
from instance_manager.core.usage import Usage
from instance_manager.platform.reading import BoundedReader

log = structlog.get_logger(__name__)

_WHAT_TO_DO = {
    errno.EROFS: "mount it writable again",
    errno.EAGAIN: "raise cgroup.max.descendants there and above, or delete instances",
    errno.ENOSPC: "free memory of the machine, or delete instances",
    errno.ENOMEM: "free memory of the machine, or delete instances",
    errno.EMFILE: "raise the limit of open files, or delete instances",
    errno.ENFILE: "raise the limit of open files of the machine, or delete instances",
}
_RESTART = "look at it, and restart the instance manager when it is there again"


class CgroupContainment:
    """Implements `app.containment.Containment`.

    `ROOT/OWNER/UUID` is the cell of an instance; cells of other owners are neither read nor touched.
    """

    def __init__(
        self,
        root: Path,
        owner: str,
        without: Containment,
        *,
        limits: InstanceLimits | None = None,
        ours: Collection[int] = (),
    ) -> None:
        """Open the directory of this owner.

        Args:
            root: below which it is made.
            owner: the state directory's value of `contract.OWNER_VARIABLE`.
            without: finds and ends what daemons without cells have started.
            limits: of each instance that is created.
            ours: PIDs of this daemon and of its guard, which may be moved out of the root so that
                controllers can be enabled; none if controllers are to be left as they are.

        Raises:
            UnusableError: if it cannot be made.
        """
        self._root = root
        self._failures: Counter[str] = Counter()
        """How often a cell could not be made, by reason."""
        self._failing = ""
        """Why the last one could not be made; empty if it could."""
        self._limits_refused: dict[str, str] = {}
        """Why the last cell goes without some limits, by file."""
        self._limits = limits or InstanceLimits()
        self._without = without
        self._watcher = EventWatcher()
        self._reader = BoundedReader()
        self._leaders: dict[int, CgroupCell] = {}
        """Cells by the PIDs of their leaders."""
        self._known: dict[str, Adoptable] = {}
        """What was found without a cell, by UUID."""
        try:
            self._owner = Owner(root, owner)
            self._controllers = Controllers(root, ours) if ours else None
            if self._controllers is not None:
                self._controllers.ensure(self._owner.folder)
        except OSError as error:
            raise UnusableError(
                f"no cell can be made in {root}: {error.strerror}; {_advice(error)}"
            ) from error
        self.folder = str(self._owner.path)

    def status(self) -> ContainmentStatus:
        """Return where cells are made, and what they lack."""
        enabled: list[str] = []
        with suppress(OSError):
            enabled = self._owner.folder.read("cgroup.subtree_control").split()
        return ContainmentStatus(
            Kind.CGROUP,
            f"cells can be made in {self._root}",
            self.folder,
            tuple(name for name in WANTED if name in enabled),
            self._controllers.why_not if self._controllers else "",
            self._limits,
            self._limits_refused,
            self._failures,
        )

    def create(self, metadata: CellMetadata) -> CgroupCell:
        """Make the cell of a new instance."""
        return self._create(metadata, moving=False)

    def _create(self, metadata: CellMetadata, *, moving: bool) -> CgroupCell:
        try:
            self._owner.make(metadata.uuid)
            cell = self._cell(metadata.uuid)
            try:
                self._limit(metadata.uuid)
                cell.prepare(metadata, moving=moving)
            except OSError:
                cell.discard()
                raise
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            self._failures[reason] += 1
            if reason != self._failing:
                log.warning("no cell can be made", folder=self.folder, reason=reason)
            self._failing = reason
            raise ResourceExhaustedError(
                f"cannot start {metadata.name}: no cgroup can be made for it in {self.folder}: {reason}; "
                f"{_advice(error)}"
            ) from error
        self._failing = ""
        return cell

    def _limit(self, uuid: str) -> None:
        """Set the limits of a cell. An instance without them is better than none, but that is told."""
        if self._controllers is not None:
            self._controllers.ensure(self._owner.folder)
        refused = limit(self._owner.cell(uuid), self._limits)
        if refused and refused != self._limits_refused:
            log.warning("instances go without some limits", folder=self.folder, refused=refused)
        self._limits_refused = refused

    def take_over(self, uuid: str, identity: Identity) -> Cell:
        """Return the cell of an instance of an earlier daemon; without one, it is moved to one."""
        try:
            known = self._owner.cell(uuid).exists()
        except OSError as error:
            log.warning("cell not looked at", uuid=uuid, reason=error.strerror)
            known = error.errno != errno.EINVAL
        if known:
            cell = self._cell(uuid)
            limit_again(self._owner.cell(uuid))
            if cell.moving:
                self._move(self._without.take_over(uuid, identity), cell)
            return cell
        former = self._without.take_over(uuid, identity)
        if not lives(identity):
            return former
        found = self._known.pop(uuid, None)
        name, recovery, command = (
            (found.name, found.recovery_metadata, found.command) if found else ("", "", ())
        )
        try:
            cell = self._create(CellMetadata(name, uuid, recovery, command), moving=True)
        except ResourceExhaustedError as error:
            log.warning("an instance goes on without a cell", uuid=uuid, reason=str(error))
            return former
        if self._move(former, cell):
            return cell
        cell.discard()
        return former

    def _move(self, former: Cell, cell: CgroupCell) -> bool:
        """Move the members of a cell to another one, until none is left that was started meanwhile.

        The other one says so as long as that is not done: a daemon that ends meanwhile leaves it to the next.
        """
        moved: set[int] = set()
        try:
            while fresh := [pid for pid in former.members() if pid not in moved]:
                for pid in fresh:
                    cell.admit(pid)
                moved.update(fresh)
            cell.moved()
        except OSError as error:
            log.warning("an instance is not moved to a cell", uuid=cell.uuid, reason=error.strerror)
            return False
        log.info("moved to a cell", uuid=cell.uuid, pids=len(moved))
        return True

    def around(self, leader: int) -> Cell | None:
        """Return the cell of a leader."""
        return self._leaders.get(leader) or self._without.around(leader)

    async def find(self, *, thorough: bool) -> Findings:
        """Return the leaders in the cells of this owner; `thorough`, also those that have none."""
        adoptable: dict[str, Adoptable] = {}
        unclear: list[Unclear] = []
        contained: set[int] = set()
        try:
            names = self._owner.folder.names() if self._owner.is_there() else None
        except OSError as error:
            names, reason = None, error.strerror
        else:
            reason = "it is gone"
        if names is None:
            return Findings((), (Unclear(None, f"{self.folder} cannot be listed: {reason}"),))
        for uuid in names:
            await asyncio.sleep(0)
            found = self._look_at(uuid, contained)
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

    def _look_at(self, uuid: str, contained: set[int]) -> Adoptable | Unclear | None:
        """Return the leader in a cell; None if it was empty, and is removed.

        Args:
            uuid: its name.
            contained: is given its members.
        """
        try:
            cell = self._owner.cell(uuid)
            # Looked first: a hierarchy that is read-only refuses the removal, whoever lives there.
            if not cell.is_populated() and cell.remove():
                log.info("empty cell removed", uuid=uuid)
                return None
            pids = list(cell.members())
        except OSError as error:
            return Unclear(None, f"its cgroup cannot be looked at: {error.strerror}", uuid)
        contained.update(pids)
        return look_at(cell, pids)

    async def usage(self, leaders: Collection[int]) -> Mapping[int, Usage]:
        """Return what the kernel has counted for their cells, and what the members themselves tell."""
        cells = {leader: cell for leader in leaders if (cell := self._leaders.get(leader))}
        without = await self._without.usage([leader for leader in leaders if leader not in cells])
        return {**without, **await usage_of_cells(cells, self._reader)}

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
        if self._controllers is not None:
            self._controllers.close()
        self._owner.close()

    def _cell(self, uuid: str) -> CgroupCell:
        return CgroupCell(self._owner, uuid, self._watcher, self._leaders)


def _advice(error: OSError) -> str:
    return _WHAT_TO_DO.get(error.errno or 0, _RESTART)
