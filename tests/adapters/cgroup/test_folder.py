"""A cgroup as a directory: its attributes, its members, and when it may be removed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.cgroup.owner import Owner, cells_of_others
from tests.support.cell_program import METADATA, UUID
from tests.support.inmates import LAST, Inmate
from tests.support.processes import wait_for

PIECE = 60_000
THREADS = """
import os, threading, time
for _ in range(2):
    threading.Thread(target=time.sleep, args=(1000,)).start()
print(os.getpid(), flush=True)
"""


def inside(containment: CgroupContainment, *names: str) -> Path:
    return Path(containment.folder, UUID, *names)


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    """A cgroup that is found through a descriptor."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    (root / "a").mkdir()
    yield Folder(fd, "a")
    Folder(fd, "a").remove()
    os.close(fd)


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_an_attribute_of_any_length_is_read_as_it_was_written(folder: Folder, length: int) -> None:
    value = bytes(i % 251 for i in range(length))
    folder.set_attribute("x", value)
    assert folder.attribute("x") == value


def test_an_attribute_for_which_there_is_no_room_is_not_read_in_part(folder: Folder) -> None:
    folder.set_attribute("other", b"x" * PIECE)
    with pytest.raises(OSError, match="No space left"):
        folder.set_attribute("x", b"y" * 2 * PIECE)
    assert folder.attribute("x") is None


@given(values=st.lists(st.binary(max_size=50), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_the_last_value_counts(folder: Folder, values: list[bytes]) -> None:
    for value in values:
        folder.set_attribute("x", value)
    assert folder.attribute("x") == values[-1]


def test_one_that_is_empty_is_removed_with_all_below_however_deep(root: Path, folder: Folder) -> None:
    deep = root / "a"
    for _ in range(300):
        deep = deep / "b"
        deep.mkdir()
    assert folder.remove()
    assert not (root / "a").exists()
    assert folder.remove()


async def test_nothing_is_removed_below_one_in_which_somebody_lives(containment: CgroupContainment) -> None:
    cell = containment.create(METADATA)
    inmate = Inmate(cell, LAST)
    nested = inside(containment, "made", "by it")
    nested.mkdir(parents=True)
    await containment.find(thorough=False)
    cell.discard()
    assert nested.is_dir()
    assert inmate.living() == {inmate.pid}
    assert await cell.end() is None
    inmate.reap()
    assert not inside(containment).exists()


async def test_members_of_cgroups_below_are_members_and_threads_are_not(
    containment: CgroupContainment,
) -> None:
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"python3 -c '{THREADS}' & {LAST}", 2)
    nested = inside(containment, "below")
    nested.mkdir()
    (nested / "cgroup.procs").write_text(str(inmate.pids[0]))
    assert sorted(cell.members()) == sorted(inmate.pids)
    assert not cell.excludes(inmate.pids[0])
    assert cell.excludes(os.getpid())
    # One that has ended and is not reaped yet is none.
    inmate.kill()
    wait_for(inmate.pid, os.WEXITED | os.WNOWAIT)
    assert inmate.pid not in set(cell.members())
    assert await cell.end() is None
    inmate.reap()


async def test_a_cgroup_of_threads_below_a_cell_hides_nobody(containment: CgroupContainment) -> None:
    cell = containment.create(METADATA)
    inmate = Inmate(cell, LAST)
    nested = inside(containment, "threads")
    nested.mkdir()
    (nested / "cgroup.type").write_text("threaded")
    assert list(cell.members()) == [inmate.pid]
    assert await cell.end() is None
    inmate.reap()


@pytest.mark.parametrize("uuid", ["", ".", "..", "../x", "/x", "a/b", "x.slice", "cgroup.procs", "a\0b", "é"])
def test_a_uuid_that_leads_elsewhere_is_no_cell(root: Path, uuid: str) -> None:
    """It may come out of the environment of a process that nobody has looked at."""
    owner = Owner(root, "the test")
    with pytest.raises(OSError, match="cannot be the name of a cgroup"):
        owner.cell(uuid)
    owner.close()


@pytest.mark.usefixtures("containment")
def test_of_others_only_what_has_the_form_of_an_owner_is_shown(root: Path) -> None:
    for name in ("system.slice/x.service", "manager", "0123456789abcdef/one", "0123456789abcdeg/two"):
        (root / name).mkdir(parents=True)
    assert list(cells_of_others(root, "the test")) == [("0123456789abcdef", "one", 0)]
    for name in ("system.slice/x.service", "system.slice", "manager", "0123456789abcdef/one"):
        (root / name).rmdir()
    for name in ("0123456789abcdef", "0123456789abcdeg/two", "0123456789abcdeg"):
        (root / name).rmdir()
