"""Controllers of the kernel: enabled from the root down to the cells, as far as there are any.

A cgroup with processes of its own cannot hand the controllers of memory and I/O on; so daemon and guard move
out of the root. Those of CPU and PIDs would be handed on, but make the cells unusable; so it is looked first.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from instance_manager.adapters.cgroup.folder import Folder, open_folder

log = structlog.get_logger(__name__)

MANAGER = "manager"
"""Name of the cgroup below the root that daemon and guard move to."""
ROOT_MARK = "root"
"""Attribute of a cgroup below which an instance manager has made a `MANAGER`."""
WANTED = ("memory", "io", "cpu", "pids")
"""Controllers, in the order in which they are enabled."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is seen at the root of the cells."""

    available: frozenset[str]
    """Controllers that it could hand on."""
    enabled: frozenset[str]
    """Those that it hands on."""
    inside: frozenset[int]
    """PIDs of its own processes; 0 is one that cannot be seen from here."""
    top: bool
    """Whether it is the root of the whole hierarchy, which may have processes and hand controllers on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to enable controllers."""

    move: frozenset[int] = frozenset()
    """PIDs of processes to be moved out of the root first."""
    enable: Sequence[str] = ()
    why_not: str = ""
    """Why some are not enabled that are available."""


def plan(facts: Facts, ours: Collection[int], wanted: Sequence[str] = WANTED) -> Plan:
    """Return what to do to enable controllers.

    Args:
        facts: what is seen.
        ours: PIDs of the daemon and of its guard.
        wanted: controllers, if they are available.
    """
    missing = [name for name in wanted if name in facts.available - facts.enabled]
    if not missing:
        return Plan()
    if facts.top:
        return Plan(enable=missing)
    if others := facts.inside - set(ours):
        seen = ", ".join(map(str, sorted(others)[:5]))
        return Plan(why_not=f"other processes are in the same cgroup (pid {seen})")
    return Plan(move=facts.inside, enable=missing)


class Controllers:
    """Enables controllers in the root and in the directory of an owner, and keeps them enabled."""

    def __init__(self, root: Path, ours: Collection[int], wanted: Sequence[str] = WANTED) -> None:
        """Enable nothing yet.

        Args:
            root: below which the directory of the owner is.
            ours: PIDs of the daemon and of its guard.
            wanted: controllers, if they are available.

        Raises:
            OSError: if there is no such root.
        """
        self._fd = open_folder(root)
        self._root = Folder(self._fd, ".")
        self._path = root
        self._ours = frozenset(ours)
        self._wanted = wanted
        self.why_not = ""
        """Why controllers are missing that the machine has; empty if none is."""

    def ensure(self, owner: Folder) -> None:
        """Enable what is missing in the cells of an owner: others may have taken it away since the last time.

        systemd does, with a controller that no unit of its own asks for.
        """
        try:
            why_not = self._ensure(owner)
        except OSError as error:
            why_not = f"its cgroup cannot be looked at: {error.strerror}"
        if why_not and why_not != self.why_not:
            log.warning("controllers not enabled", root=str(self._path), reason=why_not)
        self.why_not = why_not

    def close(self) -> None:
        """Leave everything as it is."""
        os.close(self._fd)

    def _ensure(self, owner: Folder) -> str:
        refused = []
        # Looked at each create: who lives in the root is a long list, and read only if it matters.
        if _missing(self._root, self._wanted):
            facts = self._look()
            todo = plan(facts, self._ours, self._wanted)
            if todo.move:
                self._move(todo.move)
                todo = plan(self._look(), (), self._wanted)
            refused += [todo.why_not] if todo.why_not else []
            refused += [_told(name, why) for name in todo.enable if (why := _enable(self._root, name))]
            if todo.enable and not facts.top and self._look().inside:
                # Somebody has come in meanwhile: what is below would be unusable from now on.
                for name in todo.enable:
                    _disable(self._root, name)
                return "a process has entered the same cgroup"
        for name in _missing(owner, self._wanted):
            if why := _enable(owner, name):
                refused.append(_told(name, why))
        return "; ".join(refused)

    def _look(self) -> Facts:
        return Facts(
            available=frozenset(self._root.read("cgroup.controllers").split()),
            enabled=frozenset(self._root.read("cgroup.subtree_control").split()),
            inside=frozenset(map(int, self._root.read("cgroup.procs").split())),
            top=not self._has_type(),
        )

    def _has_type(self) -> bool:
        with suppress(FileNotFoundError):
            self._root.read("cgroup.type")
            return True
        return False

    def _move(self, pids: Collection[int]) -> None:
        """Move processes out of the root, which is marked so that the next daemon knows it by that."""
        self._root.set_attribute(ROOT_MARK, b"1")
        manager = Folder(self._fd, MANAGER)
        with suppress(FileExistsError):
            os.mkdir(MANAGER, dir_fd=self._fd)
        for pid in pids:
            with suppress(ProcessLookupError):
                manager.write("cgroup.procs", str(pid))
        log.info("moved out of the root of the cells", root=str(self._path), pids=sorted(pids))


def _missing(folder: Folder, wanted: Sequence[str]) -> list[str]:
    """Return the controllers of a cgroup that it could hand on, and does not."""
    available = folder.read("cgroup.controllers").split()
    if not any(name in available for name in wanted):
        return []
    enabled = folder.read("cgroup.subtree_control").split()
    return [name for name in wanted if name in available and name not in enabled]


def _enable(folder: Folder, name: str) -> str:
    """Hand a controller on to what is below; return why not, if it is refused."""
    try:
        folder.write("cgroup.subtree_control", f"+{name}")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _disable(folder: Folder, name: str) -> None:
    with suppress(OSError):
        folder.write("cgroup.subtree_control", f"-{name}")


def _told(name: str, why: str) -> str:
    return f"{name}: {why}"
