"""A program that uses cells as the daemon does, and is killed at a certain point.

Usage: python -m tests.support.cell_program ROOT POINT
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import structlog

from instance_manager.adapters.cgroup import CgroupContainment, UnusableError, choose
from instance_manager.adapters.cgroup.cell import CgroupCell
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.process import Reaper
from instance_manager.app.containment import CellMetadata, Kind
from instance_manager.core.process import Identity
from instance_manager.platform.commands import ENTER_CGROUP, INHERITED
from tests.support.inmates import LAST, Inmate
from tests.support.processes import by_session, ticks

UUID = "5a0c2f0e-7d0b-4f43-9c39-0a4f3e6c1d55"
METADATA = CellMetadata("r1", UUID, '{"binary": "sleep"}', ("sleep", "1000"))
OWNER = "the test"
GATE = "GATE"
"""Variable with the path of a FIFO, into which something is written to let a launcher go on."""


def tell(*words: object) -> None:
    """Tell the test something: a line each."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def die(*_: Any, **__: Any) -> NoReturn:
    """End as with kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def opened(root: Path, owner: str = OWNER) -> CgroupContainment:
    """Return the containment of an owner."""
    return CgroupContainment(root, owner, by_session(Reaper()))


def cells(containment: CgroupContainment) -> list[str]:
    """Return the UUIDs of the cells of an owner."""
    return [path.name for path in Path(containment.folder).iterdir() if path.is_dir()]


def launched_late(cell: CgroupCell) -> int:
    """Start what enters a cell as the launcher does, but only when it is let; return its PID."""
    script = f'read _ <"${GATE}"; {ENTER_CGROUP} && : >"${GATE}.entered"'
    # It must not hold the pipe that this program tells through.
    files = [(os.POSIX_SPAWN_DUP2, cell.entrance, INHERITED), (os.POSIX_SPAWN_CLOSE, 1)]
    return os.posix_spawn("/bin/sh", ("/bin/sh", "-c", script), os.environ, file_actions=files, setsid=True)


async def run(root: Path, point: str) -> None:
    """Start an instance and end it, up to a point."""
    containment = opened(root)
    if point == "made":
        setattr(CgroupCell, "prepare", die)  # noqa: B010 - for the types
    cell = containment.create(METADATA)
    if point == "written":
        die()
    if point == "launched":
        tell(launched_late(cell))
        die()
    inmate = Inmate(cell, LAST)
    tell(*inmate.pids)
    if point == "entered":
        die()
    cell.led_by(Identity(inmate.pid, ticks(inmate.pid)), -1)
    if point == "known":
        die()
    setattr(Folder, "remove", die)  # noqa: B010 - as above
    await cell.end()


async def look(root: Path) -> None:
    """Tell what can be done where the hierarchy is read-only, and end what is there."""
    tell(choose(None, root).reason)
    try:
        choose(Kind.CGROUP, root)
    except UnusableError as error:
        tell(error)
    containment = opened(root)
    (found,) = (await containment.find(thorough=False)).adoptable
    cell = containment.take_over(found.uuid, found.identity)
    tell(await cell.end())


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    folder, where = Path(sys.argv[1]), sys.argv[2]
    asyncio.run(look(folder) if where == "look" else run(folder, where))
