"""Cells on a machine with all controllers and systemd: limits hold, and what is used is counted."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.adapters.cgroup.controllers import MANAGER, WANTED, Controllers
from instance_manager.adapters.cgroup.owner import Owner
from instance_manager.adapters.cgroup.usage import usage_of_cells
from instance_manager.adapters.process import Reaper
from instance_manager.core.limits import InstanceLimits
from instance_manager.platform.reading import BoundedReader
from tests.support.cell_program import METADATA
from tests.support.cells import own_root
from tests.support.guard import gone
from tests.support.inmates import LAST, Inmate
from tests.support.processes import by_session

TOP = Path("/sys/fs/cgroup")
MIB = 1 << 20
EATER = """
import os
print(os.getpid(), flush=True)
eaten = []
while True:
    eaten.append(os.urandom(1 << 20))
"""
WRITER = """
import os, time
with open(f"/var/tmp/cells-{os.getpid()}", "wb") as file:
    os.unlink(file.name)
    file.write(bytes(8 << 20))
    os.fsync(file.fileno())
print(os.getpid(), flush=True)
time.sleep(1000)
"""
FORKS = f"i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done 2>/dev/null; {LAST}"


@pytest.fixture
def root() -> Iterator[Path]:
    """A cgroup that all controllers reach, as they reach that of a service with Delegate=yes."""
    for name in WANTED:
        (TOP / "cgroup.subtree_control").write_text(f"+{name}")
    with own_root(TOP) as made:
        yield made


@pytest.fixture
async def daemon(root: Path) -> AsyncIterator[int]:
    """A process in the root, as the daemon is."""
    process = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    (root / "cgroup.procs").write_text(str(process.pid))
    yield process.pid
    process.kill()
    await process.wait()
    with suppress(FileNotFoundError):
        (root / MANAGER).rmdir()


@pytest.fixture
async def containment(root: Path, daemon: int) -> AsyncIterator[CgroupContainment]:
    """Cells with limits."""
    limits = InstanceLimits(memory_max=64 * MIB, pids_max=20, cpu_weight=50)
    made = CgroupContainment(root, "the test", by_session(Reaper()), limits=limits, ours=[daemon])
    yield made
    made.close()


def told(containment: CgroupContainment, file: str) -> list[str]:
    """Return the words in a file of the cell."""
    return Path(containment.folder, METADATA.uuid, file).read_text().split()


async def test_all_controllers_reach_the_cells_and_limits_hold(containment: CgroupContainment) -> None:
    cell = containment.create(METADATA)
    assert containment.status().limits_refused == {}
    assert set(WANTED) <= set(told(containment, "cgroup.controllers"))
    expected = {"memory.max": 64 * MIB, "memory.oom.group": 1, "pids.max": 20, "cpu.weight": 50}
    assert {file: int(*told(containment, file)) for file in expected} == expected
    inmate = Inmate(cell, FORKS, 0)
    inmate.reap()  # a shell that cannot fork any more ends
    assert 0 < len(list(cell.members())) <= 20
    assert await cell.end() is None


async def test_out_of_memory_ends_all_of_it_and_is_told(containment: CgroupContainment) -> None:
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"sh -c '{LAST}' & python3 -c '{EATER}' & {LAST}", 3)
    inmate.reap()
    assert cell.killed_for_memory() == "out of memory: limit 64 MiB of this instance"
    assert await cell.end() is None
    await gone(inmate.pids)


async def test_use_is_counted_by_the_kernel(containment: CgroupContainment) -> None:
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"exec python3 -c '{WRITER}'")
    used = (await usage_of_cells({1: cell}, BoundedReader()))[1]
    assert used.missing == []
    assert used.processes == used.threads == 1
    assert (used.memory_bytes or 0) > MIB
    assert (used.written_bytes or 0) >= 8 * MIB
    assert await cell.end() is None
    inmate.reap()


async def test_what_systemd_takes_away_does_not_reach_the_cells(containment: CgroupContainment) -> None:
    """It takes from the top what no unit of its own asks for, but not what a cgroup below hands on."""
    containment.create(METADATA).discard()
    reloading = await asyncio.create_subprocess_exec("systemctl", "daemon-reload")
    assert await reloading.wait() == 0
    cell = containment.create(METADATA)
    assert set(WANTED) <= set(told(containment, "cgroup.controllers"))
    cell.discard()


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("wanted", [WANTED, ("cpu", "pids"), ("pids",)])
async def test_a_root_with_others_stays_as_it_is_and_cells_work(root: Path, wanted: tuple[str, ...]) -> None:
    """The kernel would hand CPU and PIDs on, and let no process into a cell any more."""
    owner = Owner(root, "the test")
    controllers = Controllers(root, [os.getpid()], wanted)
    controllers.ensure(owner.folder)
    assert controllers.why_not.startswith("other processes are in the same cgroup")
    assert owner.folder.read("cgroup.type").strip() == "domain"
    controllers.close()
    owner.close()


async def test_cpu_and_pids_alone_leave_cells_usable(root: Path, daemon: int) -> None:
    owner = Owner(root, "the test")
    controllers = Controllers(root, [daemon], ("cpu", "pids"))
    controllers.ensure(owner.folder)
    assert controllers.why_not == ""
    assert owner.folder.read("cgroup.type").strip() == "domain"
    assert {"cpu", "pids"} <= set(owner.folder.read("cgroup.subtree_control").split())
    controllers.close()
    owner.close()
