"""Controllers and limits: planned from what is seen, and made to happen with one that this machine has."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.adapters.cgroup.controllers import MANAGER, WANTED, Controllers, Facts, Plan, plan
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.cgroup.hierarchy import choose
from instance_manager.adapters.cgroup.limits import limit, limit_again, settings_of
from instance_manager.adapters.cgroup.owner import Owner
from instance_manager.adapters.process import Reaper
from instance_manager.core.limits import InstanceLimits
from tests.support.cell_program import METADATA, UUID
from tests.support.cells import hierarchy, own_root
from tests.support.processes import by_session

GUARD, DAEMON, OTHER = 1, 7, 9
OURS = (GUARD, DAEMON)
NAMES = st.frozensets(st.sampled_from([*WANTED, "hugetlb", "rdma"]))


def seen(*inside: int, available: str = "cpu io memory pids", enabled: str = "", top: bool = False) -> Facts:
    return Facts(frozenset(available.split()), frozenset(enabled.split()), frozenset(inside), top)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        # Those of which processes in the same cgroup cannot be part come first: they are refused then.
        (seen(DAEMON, GUARD), Plan(frozenset(OURS), ["memory", "io", "cpu", "pids"])),
        (seen(), Plan(enable=["memory", "io", "cpu", "pids"])),
        (seen(DAEMON, available="pids hugetlb"), Plan(frozenset([DAEMON]), ["pids"])),
        (seen(enabled="memory io", available="memory io pids"), Plan(enable=["pids"])),
        # Nothing to be had: nobody is moved for it.
        (seen(DAEMON, OTHER, available="hugetlb"), Plan()),
        (seen(DAEMON, enabled="cpu io memory pids"), Plan()),
        # Others would keep it from being possible, or make cells unusable; one may be invisible here.
        (seen(DAEMON, OTHER, 10), Plan(why_not="other processes are in the same cgroup (pid 9, 10)")),
        (seen(0), Plan(why_not="other processes are in the same cgroup (pid 0)")),
        # The root of the hierarchy may have processes.
        (seen(DAEMON, OTHER, top=True), Plan(enable=["memory", "io", "cpu", "pids"])),
    ],
)
def test_what_is_done_to_enable_controllers(facts: Facts, expected: Plan) -> None:
    assert plan(facts, OURS) == expected


@given(
    available=NAMES,
    enabled=NAMES,
    inside=st.frozensets(st.sampled_from([0, GUARD, DAEMON, OTHER])),
    top=st.booleans(),
)
def test_only_what_is_ours_is_moved_and_only_what_is_possible_enabled(
    available: frozenset[str], enabled: frozenset[str], inside: frozenset[int], top: bool
) -> None:
    todo = plan(Facts(available, enabled, inside, top), OURS)
    assert todo.move <= set(OURS) & inside
    assert set(todo.enable) <= (available - enabled) & set(WANTED)
    assert not (todo.enable and todo.why_not)
    if todo.enable and not top:
        assert inside <= todo.move
    # What was done is not done again.
    after = Facts(available, enabled | set(todo.enable), inside - todo.move, top)
    assert plan(after, OURS) == Plan(why_not=todo.why_not)


@pytest.fixture
def above() -> Path:
    """The nearest cgroup above this process that hands a controller on."""
    for folder in (hierarchy(), *hierarchy().parents):
        with suppress(FileNotFoundError):
            if (folder / "cgroup.subtree_control").read_text().split():
                return folder
    pytest.skip("needs a controller of cgroups of version 2")


@pytest.fixture
def controller(above: Path) -> str:
    """A controller that can be handed on there, whichever it is."""
    return (above / "cgroup.subtree_control").read_text().split()[0]


@pytest.fixture
def root(above: Path) -> Iterator[Path]:
    """A cgroup of the test's own, which controllers reach."""
    with own_root(above) as made:
        yield made


@pytest.fixture
def owner(root: Path) -> Iterator[Owner]:
    made = Owner(root, "the test")
    yield made
    made.close()


@pytest.fixture
async def ours(root: Path) -> AsyncIterator[int]:
    """A process in the root, as the daemon is."""
    process = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    (root / "cgroup.procs").write_text(str(process.pid))
    yield process.pid
    process.kill()
    await process.wait()
    with suppress(FileNotFoundError):
        (root / MANAGER).rmdir()


def enabled(folder: Path) -> list[str]:
    return (folder / "cgroup.subtree_control").read_text().split()


async def test_the_daemon_makes_room_and_controllers_reach_the_cells(
    root: Path, owner: Owner, ours: int, controller: str
) -> None:
    controllers = Controllers(root, [ours, os.getpid()], [controller])
    controllers.ensure(owner.folder)
    assert controllers.why_not == ""
    assert (root / "cgroup.procs").read_text() == ""
    assert (root / MANAGER / "cgroup.procs").read_text().split() == [str(ours)]
    owner.make("u")
    assert owner.cell("u").read("cgroup.controllers").split() == [controller]
    # What somebody takes away again is there at the next create.
    (owner.path / "cgroup.subtree_control").write_text(f"-{controller}")
    (root / "cgroup.subtree_control").write_text(f"-{controller}")
    controllers.ensure(owner.folder)
    assert enabled(root) == enabled(owner.path) == [controller]
    owner.cell("u").remove()
    controllers.close()


async def test_others_in_the_same_cgroup_stay_and_that_is_told(
    root: Path, owner: Owner, ours: int, controller: str
) -> None:
    controllers = Controllers(root, [os.getpid()], [controller])
    controllers.ensure(owner.folder)
    assert controllers.why_not == f"other processes are in the same cgroup (pid {ours})"
    assert (root / "cgroup.procs").read_text().split() == [str(ours)]
    assert not (root / MANAGER).exists()
    assert enabled(root) == []
    (hierarchy() / "cgroup.procs").write_text(str(ours))
    controllers.ensure(owner.folder)
    assert controllers.why_not == ""
    assert enabled(root) == [controller]
    controllers.close()


async def test_who_comes_in_meanwhile_makes_no_cell_unusable(
    root: Path, owner: Owner, ours: int, controller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    controllers = Controllers(root, [ours], [controller])
    look, looks = Controllers._look, iter([False, False, True])

    def entered(self: Controllers) -> Facts:
        facts = look(self)
        return replace(facts, inside=frozenset([OTHER])) if next(looks) else facts

    monkeypatch.setattr(Controllers, "_look", entered)
    controllers.ensure(owner.folder)
    assert controllers.why_not == "a process has entered the same cgroup"
    assert enabled(root) == []
    controllers.close()


def test_a_root_that_is_gone_is_told(root: Path, owner: Owner) -> None:
    controllers = Controllers(root, [os.getpid()])
    owner.path.rmdir()
    root.rmdir()
    controllers.ensure(owner.folder)
    assert "cannot be looked at" in controllers.why_not
    root.mkdir()
    controllers.close()


async def test_the_next_daemon_starts_in_the_manager_and_finds_the_same_root(
    root: Path, owner: Owner, ours: int, controller: str
) -> None:
    controllers = Controllers(root, [ours], [controller])
    controllers.ensure(owner.folder)
    controllers.close()
    program = "from instance_manager.adapters.cgroup import choose; print(choose(None).root)"
    entering = f'echo 0 >{root}/{MANAGER}/cgroup.procs; exec "$0" -c "{program}"'
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", entering, sys.executable, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert told.decode().split() == [str(root)]
    assert choose(None).root != root


def test_limits_become_files_of_the_kernel() -> None:
    assert list(settings_of(InstanceLimits())) == [("memory.oom.group", "1", False)]
    assert {file: text for file, text, _ in settings_of(InstanceLimits(2 << 30, 500, 50))} == {
        "memory.oom.group": "1",
        "memory.max": str(2 << 30),
        "pids.max": "500",
        "cpu.weight": "50",
    }


def test_a_limit_without_its_controller_is_told(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    (root / "a").mkdir()
    folder = Folder(fd, "a")
    refused = limit(folder, InstanceLimits(memory_max=1 << 20, pids_max=5))
    assert refused == {
        "memory.max": "the controller memory is not enabled",
        "pids.max": "the controller pids is not enabled",
    }
    folder.remove()
    os.close(fd)


def test_limits_that_were_lost_are_set_again_as_they_were_written_down(tmp_path: Path) -> None:
    for name in ("memory.max", "pids.max", "memory.oom.group"):
        (tmp_path / name).write_text("max")
    above = os.open(tmp_path.parent, os.O_RDONLY)
    folder = Folder(above, tmp_path.name)
    limit(folder, InstanceLimits(memory_max=1 << 20, pids_max=5))
    for name in ("memory.max", "pids.max"):
        (tmp_path / name).write_text("")
    (tmp_path / "memory.oom.group").unlink()
    limit_again(folder)
    assert [(tmp_path / name).read_text() for name in ("memory.max", "pids.max")] == ["1048576", "5"]
    os.close(above)


def test_nothing_but_limits_is_set_again(tmp_path: Path) -> None:
    (tmp_path / "cgroup.kill").write_text("")
    above = os.open(tmp_path.parent, os.O_RDONLY)
    folder = Folder(above, tmp_path.name)
    folder.set_attribute("limits", b"cgroup.kill 1\nnonsense\n\xff\n")
    limit_again(folder)
    assert (tmp_path / "cgroup.kill").read_text() == ""
    os.close(above)


async def test_an_instance_goes_without_a_limit_that_cannot_be_set_and_that_is_told_once(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    containment = CgroupContainment(root, "the test", by_session(Reaper()), limits=InstanceLimits(pids_max=5))
    for _ in range(2):
        containment.create(METADATA).discard()
    assert containment.status().limits_refused == {"pids.max": "the controller pids is not enabled"}
    assert capsys.readouterr().out.count("instances go without some limits") == 1
    assert not (Path(containment.folder) / UUID).exists()
    containment.close()
