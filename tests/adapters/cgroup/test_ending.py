"""The end of a cell: whatever its processes do, none is left; where the kernel cannot do it, one by one."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.adapters.cgroup import cell as under_test
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.cgroup.owner import Owner
from instance_manager.core.process import Identity
from tests.support.cell_program import METADATA, UUID, cells, opened
from tests.support.cells import by_cgroup, hierarchy
from tests.support.guard import gone
from tests.support.inmates import BEHAVIOURS, LAST, Inmate, behaving, read_only
from tests.support.patience import patience
from tests.support.processes import Workshop, eventually, open_workshop, ticks

PIDS = Path("/sys/fs/cgroup/pids")
BOMB = """
import os, sys, time
open(sys.argv[1], "w").write("0")
print("armed", flush=True)
while True:
    try:
        if not os.fork():
            os.setsid()
    except OSError:
        time.sleep(0.001)
"""


@pytest.fixture
def bounded() -> Iterator[Path]:
    """A control group in which there are 500 processes at most, whatever fails."""
    group = PIDS / f"instance-manager-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text("500")
    except OSError as error:
        pytest.skip(f"needs a writable pids control group (version 1) at {PIDS}: {error}")
    yield group
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    group.rmdir()


@pytest.fixture
async def workshop(root: Path) -> AsyncIterator[Workshop]:
    """A spawner whose processes are in cells; what they leave is inherited and reaped here."""
    async with open_workshop(contained=by_cgroup(root)) as opened_here:
        yield opened_here


@pytest.fixture(params=["cgroup.kill", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """End cells in both ways; Linux before 5.14 is not to be had here."""
    write = Folder.write

    def without(self: Folder, file: str, text: str) -> None:
        write(self, "no-such-file" if file == "cgroup.kill" else file, text)

    if request.param == "one by one":
        monkeypatch.setattr(Folder, "write", without)
    return str(request.param)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_whatever_it_does_nothing_is_left(
    root: Path, containment: CgroupContainment, behaviour: str, way: str
) -> None:
    other, cell = opened(root, "another"), containment.create(METADATA)
    neighbour = behaving(other.create(METADATA), behaviour)
    inmate = behaving(cell, behaviour)
    assert set(cell.members()) >= set(inmate.pids), way
    assert await cell.end() is None
    inmate.reap()
    await gone(inmate.pids)
    assert cells(containment) == []
    assert neighbour.living() == set(neighbour.pids)
    assert await other.take_over(UUID, Identity(neighbour.pid, ticks(neighbour.pid))).end() is None
    neighbour.reap()
    other.close()


async def test_a_fork_bomb_that_leaves_its_session_ends(workshop: Workshop, bounded: Path, way: str) -> None:
    started = workshop.spawn(sys.executable, "-I", "-S", "-c", BOMB, str(bounded / "cgroup.procs"))
    assert await workshop.output.line() == "armed"
    await eventually(lambda: len((bounded / "cgroup.procs").read_text().split()) > 400)
    assert await started.child.end_tree() is None, way
    await started.exited()
    await eventually(lambda: not (bounded / "cgroup.procs").read_text())
    await started.child.end_tree()


async def test_where_the_hierarchy_is_read_only_all_is_killed_and_what_to_do_is_told(
    root: Path, containment: CgroupContainment
) -> None:
    inmate = behaving(containment.create(METADATA), "leaves orphans")
    command = read_only(hierarchy(), "tests.support.cell_program", str(root), "look")
    program = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True)
    by_itself, asked_for, remains = program.stdout.decode().splitlines()
    assert by_itself == asked_for
    assert "Read-only file system: it is mounted read-only; mount it writable" in asked_for
    assert remains == "None"
    inmate.reap()
    await gone(inmate.pids)
    assert cells(containment) == [UUID]
    assert (await containment.find(thorough=False)).unclear == ()
    assert cells(containment) == []


async def test_the_kernel_tells_when_the_last_one_has_ended(
    containment: CgroupContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is looked at in between: the end is noticed although it comes long before the next look."""
    monkeypatch.setattr(under_test, "TIMEOUT", 1000.0)
    cell = containment.create(METADATA)
    inmate = Inmate(cell, LAST)

    # Somebody else kills it a little later than `end` does here, which finds nobody to kill.
    async def nobody(_: Folder) -> None:
        asyncio.get_running_loop().call_later(0.05, inmate.kill)

    monkeypatch.setattr(under_test, "kill", nobody)
    async with asyncio.timeout(patience(20)):
        assert await cell.end() is None
    inmate.reap()


async def test_what_remains_is_told_and_can_be_ended_later(
    containment: CgroupContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "TIMEOUT", 0.05)
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"for _ in 1 2 3 4 5 6 7 8 9; do sh -c '{LAST}' & done; {LAST}", 10)

    async def nobody(_: Folder) -> None:
        """As if all were in uninterruptible sleep."""

    with monkeypatch.context() as patch:
        patch.setattr(under_test, "kill", nobody)
        told = str(await cell.end())
    assert f"pid {inmate.pid} (sleep) is in state " in told
    assert told.endswith("; 2 more")
    assert inmate.living() == set(inmate.pids)
    assert await cell.end() is None
    inmate.reap()


async def test_a_cell_that_somebody_enters_while_it_is_removed_is_ended_again(
    containment: CgroupContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = containment.create(METADATA)
    remove = Folder.remove
    entered: list[Inmate] = []

    def too_late(self: Folder) -> bool:
        if not entered:
            entered.append(Inmate(cell, LAST))
        return remove(self)

    monkeypatch.setattr(Folder, "remove", too_late)
    assert await cell.end() is None
    entered[0].reap()
    await gone(entered[0].pids)


async def test_a_cell_that_has_vanished_is_gone_and_one_that_cannot_be_read_is_not(
    containment: CgroupContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = containment.create(METADATA)
    (Path(containment.folder) / UUID).rmdir()
    for refused in ("open", "exists"):
        with monkeypatch.context() as patch:
            patch.setattr(Folder, refused, refuse)
            assert await cell.end() == "its cgroup cannot be looked at: Too many open files"
    with monkeypatch.context() as patch:
        patch.setattr(Owner, "is_there", lambda _: False)
        assert "cannot be looked at" in str(await cell.end())
    assert await cell.end() is None


def refuse(*_: object) -> None:
    raise OSError(24, os.strerror(24))
