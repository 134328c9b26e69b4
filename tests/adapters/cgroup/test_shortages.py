"""What can be refused, taken away or used up: it is told with what to do, and does no lasting damage."""

import errno
import os
from pathlib import Path

import pytest

from instance_manager.adapters.cgroup import CgroupContainment, UnusableError
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.app.containment import CellMetadata
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import Identity
from tests.support.cell_program import METADATA, UUID, cells, opened
from tests.support.inmates import LAST, Inmate
from tests.support.processes import descriptors, ticks


def removed(containment: CgroupContainment) -> None:
    Path(containment.folder).rmdir()


async def test_the_directory_of_the_owner_is_made_again_when_somebody_has_removed_it(
    containment: CgroupContainment,
) -> None:
    removed(containment)
    assert (await containment.find(thorough=False)).unclear == ()
    removed(containment)
    cell = containment.create(METADATA)
    assert cells(containment) == [UUID]
    cell.discard()
    removed(containment)
    # It was not removed while somebody lived in it: the kernel does not allow that.
    assert await cell.end() is None


async def test_where_the_directory_of_the_owner_cannot_be_made_again_nothing_is_taken_for_gone(
    containment: CgroupContainment, root: Path
) -> None:
    cell = containment.create(METADATA)
    cell.discard()
    removed(containment)
    (root / "cgroup.max.descendants").write_text("0")
    assert str(await cell.end()).startswith("its cgroup cannot be looked at: ")
    (unclear,) = (await containment.find(thorough=False)).unclear
    assert unclear.reason == f"{containment.folder} cannot be listed: it is gone"
    with pytest.raises(ResourceExhaustedError, match="No such file or directory; look at it, and restart"):
        containment.create(METADATA)
    (root / "cgroup.max.descendants").write_text("max")
    assert await cell.end() is None


async def test_a_shortage_is_counted_each_time_and_logged_until_it_changes(
    containment: CgroupContainment, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill = [root / "cgroup.max.descendants", root / "cgroup.max.depth"]
    for file, times in ((fill[0], 3), (fill[1], 2)):
        file.write_text("1")
        for _ in range(times):
            with pytest.raises(ResourceExhaustedError, match=r"raise cgroup\.max\.descendants"):
                containment.create(METADATA)
        file.write_text("max")
        containment.create(METADATA).discard()
    assert containment.status().failures == {os.strerror(errno.EAGAIN): 5}
    # Once for each time that it began.
    assert capsys.readouterr().out.count("no cell can be made") == 2
    assert cells(containment) == []


@pytest.mark.parametrize("step", ["open_itself", "set_attribute"])
async def test_a_cell_that_cannot_be_prepared_leaves_nothing(
    containment: CgroupContainment, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = descriptors(os.getpid())

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Folder, step, refuse)
        with pytest.raises(ResourceExhaustedError, match="raise the limit of open files"):
            containment.create(METADATA)
    assert cells(containment) == []
    assert descriptors(os.getpid()) == before


async def test_a_command_that_is_too_long_is_left_out(containment: CgroupContainment) -> None:
    recovery = "x" * 100_000
    cell = containment.create(CellMetadata("r1", UUID, recovery, ("x", "y" * 100_000)))
    inmate = Inmate(cell, LAST)
    cell.led_by(Identity(inmate.pid, ticks(inmate.pid)), -1)
    (found,) = (await containment.find(thorough=False)).adoptable
    assert (found.name, found.recovery_metadata, found.command) == ("r1", recovery, ())
    assert found.identity.pid == inmate.pid
    assert await cell.end() is None
    inmate.reap()


async def test_a_cell_that_cannot_be_looked_at_is_taken_over_all_the_same(
    containment: CgroupContainment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is short now is there later; another cell for it would hide what lives in this one."""
    cell = containment.create(METADATA)
    inmate = Inmate(cell, LAST)

    def refuse(*_: object) -> bool:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "exists", refuse)
        taken = containment.take_over(UUID, Identity(inmate.pid, ticks(inmate.pid)))
    assert list(taken.members()) == [inmate.pid]
    assert await taken.end() is None
    inmate.reap()


async def test_an_instance_with_an_odd_uuid_goes_on_without_a_cell(containment: CgroupContainment) -> None:
    """It comes out of the environment of a process, and might lead to the cell of another owner."""
    taken = containment.take_over("../another/x", Identity(os.getpid(), ticks(os.getpid())))
    assert taken.entrance is None
    assert cells(containment) == []
    with pytest.raises(ResourceExhaustedError, match="Invalid argument"):
        containment.create(CellMetadata("r1", "x.slice", "", ()))


async def test_a_cgroup_per_instance_costs_no_descriptor(containment: CgroupContainment) -> None:
    before = len(descriptors(os.getpid()))
    inmates = []
    for number in range(5):
        cell = containment.create(CellMetadata("r", f"u-{number}", "", ()))
        inmates.append((cell, Inmate(cell, LAST)))
        cell.led_by(Identity(inmates[-1][1].pid, ticks(inmates[-1][1].pid)), -1)
    assert len(descriptors(os.getpid())) == before
    for cell, inmate in inmates:
        assert await cell.end() is None
        inmate.reap()
        cell.close()


def test_an_owner_that_cannot_have_a_directory_is_told(root: Path) -> None:
    (root / "cgroup.max.descendants").write_text("0")
    with pytest.raises(UnusableError, match=r"raise cgroup\.max\.descendants"):
        opened(root)
