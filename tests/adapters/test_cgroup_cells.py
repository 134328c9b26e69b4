"""Cells by cgroups: whatever its processes do to get away, they are in the cell of their instance."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.cgroup import CgroupContainment, cells_of_others
from instance_manager.adapters.cgroup.cell import CgroupCell
from instance_manager.adapters.process import ListenerCheck, Reaper, SessionContainment, spawner
from instance_manager.app.containment import CellMetadata
from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import Identity
from tests.support.cells import by_cgroup, own_root
from tests.support.patience import patience
from tests.support.processes import Started, Workshop, by_session, lives, open_workshop, ticks, wait_for

FORKS = "for _ in 1 2 3; do sleep 1000 & done; echo forked; wait"
LISTEN = (
    "import socket, time; server = socket.create_server(('127.0.0.1', 0)); "
    "print(server.getsockname()[1], flush=True); time.sleep(1000)"
)
ESCAPES = {
    "another session": "setsid sleep 1000 & exec sleep 1000",
    "no environment": "env -i setsid sleep 1000 & exec sleep 1000",
    "an orphan": "(env -i setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; exec sleep 1000",
    "another title": "exec -a kworker/0:1 sleep 1000 & setsid env -i sleep 1000 & exec sleep 1000",
    "stopped": "env -i setsid sh -c 'kill -STOP $$; sleep 1000' & exec sleep 1000",
    "deaf": "trap '' INT TERM; (trap '' INT TERM; setsid env -i sleep 1000 &); while :; do sleep 1000; done",
}


@pytest.fixture
def root() -> Iterator[Path]:
    with own_root() as made:
        yield made


@pytest.fixture(params=["launched", pytest.param("at once", marks=pytest.mark.into_cgroup)])
def birth(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How programs come into their cells."""
    if request.param == "launched":
        monkeypatch.setattr(spawner, "can_spawn_into_cgroup", lambda: False)


@pytest.fixture
async def workshop(root: Path, birth: None) -> AsyncIterator[Workshop]:  # noqa: ARG001 - a fixture
    async with open_workshop(contained=by_cgroup(root)) as opened:
        yield opened


def cells(workshop: Workshop) -> list[Path]:
    return [path for path in Path(workshop.containment.status().folder).iterdir() if path.is_dir()]


def members(workshop: Workshop) -> set[int]:
    return {int(pid) for cell in cells(workshop) for pid in (cell / "cgroup.procs").read_text().split()}


async def ended(started: Started) -> None:
    """End a process and everything in its cell."""
    started.child.signal("SIGKILL", session=False)
    await started.exited()
    assert await started.child.end_tree() is None


async def test_programs_that_fork_at_once_leave_nobody_outside(workshop: Workshop) -> None:
    started = [workshop.shell(FORKS) for _ in range(100)]
    for _ in started:
        assert await workshop.output.line() == "forked"
    assert members(workshop) == set(workshop.marked())
    assert len(members(workshop)) == 4 * len(started)
    await asyncio.gather(*map(ended, started))
    assert workshop.marked() == []
    assert cells(workshop) == []


@pytest.mark.parametrize("how", ESCAPES)
async def test_whoever_gets_away_is_in_the_cell_and_ends_with_it(workshop: Workshop, how: str) -> None:
    other = workshop.spawn("/bin/sleep", "1000")
    shell = "/bin/bash" if "exec -a" in ESCAPES[how] else "/bin/sh"
    started = workshop.spawn(shell, "-c", f"{ESCAPES[how]}")
    async with asyncio.timeout(patience(20)):
        while len(members(workshop)) < 3:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
    pids = members(workshop)
    await ended(started)
    assert {pid for pid in pids if lives(pid)} == {other.pid}
    await ended(other)


async def test_a_cgroup_below_a_cell_ends_with_it(workshop: Workshop) -> None:
    started = workshop.shell("echo there; sleep 1000")
    assert await workshop.output.line() == "there"
    (cell,) = cells(workshop)
    below = cell / "below" / "more"
    below.mkdir(parents=True)
    moved = workshop.marked()[-1]
    (below / "cgroup.procs").write_text(str(moved))
    await ended(started)
    assert not lives(moved)
    assert cells(workshop) == []


async def test_members_are_killed_one_by_one_where_the_kernel_cannot_kill_all(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a hierarchy that has become read-only, or before Linux 5.14."""
    started = workshop.shell("setsid env -i sleep 1000 & (sleep 1000 &); sleep 1000")
    async with asyncio.timeout(patience(20)):
        while len(members(workshop)) < 4:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
    opened = os.open

    def refusing(path: object, *args: int, **options: int) -> int:
        if str(path).endswith("cgroup.kill"):
            raise OSError(30, "Read-only file system")
        return opened(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    await ended(started)
    assert workshop.marked() == []


async def test_what_cannot_be_executed_is_told_and_leaves_no_cell(workshop: Workshop, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_text("echo a shell would run this\n")
    odd.chmod(0o755)
    for program, reason in (
        ("/nonexistent", "No such file or directory"),
        (str(tmp_path), "Permission denied"),
        ("/etc/passwd", "Permission denied"),
        (str(odd), "Exec format error"),
        ("no-such-name", "No such file or directory"),
    ):
        with pytest.raises(CannotExecuteError, match=f"cannot execute {program}: {reason}"):
            workshop.spawn(program)
    assert cells(workshop) == []


async def test_what_only_the_kernel_knows_is_told_when_the_process_has_ended(
    root: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    # Variables with odd names would be handed over by env(1), which tells only its exit status.
    async with open_workshop({"PATH": os.environ["PATH"]}, contained=by_cgroup(root)) as workshop:
        started = workshop.spawn(str(script))
        assert started.child.launching
        assert f"cannot execute {script}" in (await started.child.launched() or "")
        status = await started.exited()
        assert f"cannot execute {script}: the kernel has refused it" in str(status)
        await started.child.end_tree()


async def test_a_process_that_cannot_enter_its_cell_executes_nothing(workshop: Workshop) -> None:
    containment = workshop.containment
    create = containment.create

    def create_and_remove(metadata: CellMetadata) -> object:
        cell = create(metadata)
        Path(containment.status().folder, metadata.uuid).rmdir()
        return cell

    containment.create = create_and_remove  # type: ignore[method-assign,assignment]
    started = workshop.shell("echo executed")
    assert "could not enter" in (await started.child.launched() or "")
    assert "could not enter" in str(await started.exited())
    assert await started.child.end_tree() is None
    assert b"executed" not in await workshop.output.ended()


async def test_one_that_has_ended_by_the_time_it_is_looked_at_was_in_its_cell(workshop: Workshop) -> None:
    for _ in range(10):
        started = workshop.spawn("/bin/true")
        wait_for(started.pid, os.WEXITED | os.WNOWAIT)
        assert not started.child.cell.excludes(started.pid)  # type: ignore[attr-defined]
        assert await started.child.launched() is None
        assert (await started.exited()).clean
        await started.child.end_tree()


@pytest.mark.parametrize("birth", ["launched"], indirect=True)
async def test_one_that_somebody_has_moved_is_not_taken_for_running(
    workshop: Workshop, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = workshop.spawn("/bin/sleep", "1000")
    with monkeypatch.context() as patch:
        patch.setattr(CgroupCell, "excludes", lambda *_: True)
        assert "somebody has moved it" in (await started.child.launched() or "")
    (root / "cgroup.procs").write_text(str(started.pid))
    assert started.child.cell.excludes(started.pid)  # type: ignore[attr-defined]
    (Path(workshop.containment.status().folder) / started.uuid / "cgroup.procs").write_text(str(started.pid))
    assert not started.child.cell.excludes(started.pid)  # type: ignore[attr-defined]
    await ended(started)


async def test_variables_of_any_name_reach_the_program() -> None:
    with own_root() as root:
        environment = {"PATH": os.environ["PATH"], "a.b": "1", "c-d": "two words", "KEPT": "grün"}
        async with open_workshop(environment, contained=by_cgroup(root)) as workshop:
            started = workshop.spawn("/usr/bin/env")
            await started.exited()
            assert await started.child.end_tree() is None
            lines = (await workshop.output.ended()).decode().splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert environment.items() <= variables.items()
    assert {name for name in variables if not name.startswith("INSTANCE_MANAGER_")} <= {*environment, "_"}


async def test_only_a_listener_in_the_cell_is_the_instance_s(workshop: Workshop) -> None:
    started = workshop.shell(f'env -i setsid {sys.executable} -c "{LISTEN}" & exec sleep 1000')
    port = int(await workshop.output.line())
    check = ListenerCheck(workshop.containment.around)
    assert await check.stranger(port, started.pid) == ""
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        assert str(os.getpid()) in await check.stranger(foreign.getsockname()[1], started.pid)
    await ended(started)


async def test_the_next_daemon_finds_what_lives_and_removes_what_is_empty(
    workshop: Workshop, root: Path
) -> None:
    started = workshop.spawn("/bin/sleep", "1000", name="a")
    assert await started.child.launched() is None
    (Path(workshop.containment.status().folder) / "empty").mkdir()
    following = CgroupContainment(root, "the test", by_session(Reaper()))
    findings = await following.find(thorough=False)
    (found,) = findings.adoptable
    assert (found.name, found.uuid, found.command) == ("a", started.uuid, ("/bin/sleep", "1000"))
    assert found.identity == started.child.identity
    assert findings.unclear == ()
    assert [cell.name for cell in cells(workshop)] == [started.uuid]
    following.close()
    await ended(started)


async def test_cells_of_others_are_neither_read_nor_touched(workshop: Workshop, root: Path) -> None:
    started = workshop.spawn("/bin/sleep", "1000")
    assert await started.child.launched() is None
    other = CgroupContainment(root, "another", by_session(Reaper()))
    assert (await other.find(thorough=False)).adoptable == ()
    (foreign,) = cells_of_others(root, "another")
    assert foreign == (Path(workshop.containment.status().folder).name, started.uuid, 1)
    other.close()
    assert lives(started.pid)
    await ended(started)


async def test_a_cell_of_which_nothing_is_known_is_unclear_and_never_ended(root: Path) -> None:
    containment = CgroupContainment(root, "the test", by_session(Reaper()))
    bare = Path(containment.status().folder) / "bare"
    bare.mkdir()
    process = await asyncio.create_subprocess_exec("/bin/sleep", "1000", start_new_session=True)
    try:
        (bare / "cgroup.procs").write_text(str(process.pid))
        findings = await containment.find(thorough=False)
        assert findings.adoptable == ()
        assert [each.uuid for each in findings.unclear] == ["bare"]
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
    assert (await containment.find(thorough=False)).unclear == ()
    containment.close()


async def test_what_was_started_without_a_cell_is_moved_to_one(root: Path) -> None:
    async with open_workshop() as former:
        started = former.shell("setsid sleep 1000 & (sleep 1000 &); sleep 1000")
        async with asyncio.timeout(patience(20)):
            while len(former.marked()) < 4:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.005)
        assert isinstance(former.containment, SessionContainment)
        containment = CgroupContainment(root, "the test", former.containment)
        cell = containment.take_over(started.uuid, started.child.identity)
        assert started.pid in set(cell.members())
        os.kill(started.pid, signal.SIGKILL)
        await started.exited()
        assert await cell.end() is None
        cell.close()
        await started.child.end_tree()
        assert former.marked() == []
        containment.close()


async def test_a_hierarchy_that_may_have_no_more_cgroups_refuses_with_the_reason(root: Path) -> None:
    containment = CgroupContainment(root, "the test", by_session(Reaper()))
    (root / "cgroup.max.descendants").write_text("1")
    with pytest.raises(ResourceExhaustedError, match=r"raise cgroup\.max\.descendants"):
        containment.create(CellMetadata("a", "u", "", ("/bin/true",)))
    assert sum(containment.status().failures.values()) == 1
    containment.close()


async def test_the_end_of_a_process_that_is_gone_is_certain(workshop: Workshop) -> None:
    started = workshop.shell("exit 0")
    await started.exited()
    assert await started.child.end_tree() is None
    gone = workshop.containment.take_over(started.uuid, Identity(started.pid, ticks(os.getpid()) + 1))
    assert await gone.end() is None
