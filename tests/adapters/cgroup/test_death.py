"""A daemon that is killed at any point: the next one knows what lives, and nothing else is left."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.adapters.cgroup.cell import CgroupCell
from instance_manager.adapters.process import Reaper
from instance_manager.app.interfaces import Adoptable
from instance_manager.core.process import Identity
from tests.support.cell_program import GATE, METADATA, OWNER, UUID, cells, opened
from tests.support.guard import gone
from tests.support.inmates import LAST, Inmate
from tests.support.processes import by_session, eventually, open_workshop, ticks


async def killed_at(root: Path, point: str) -> list[int]:
    """Let a program that uses cells be killed at a point; return the PIDs that it has told."""
    command = [sys.executable, "-m", "tests.support.cell_program", str(root), point]
    # No pipe of the event loop's: what lives on would hold it.
    program = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=False)
    assert program.returncode == -9
    return [int(pid) for pid in program.stdout.split()]


@pytest.mark.parametrize("point", ["made", "written"])
async def test_a_cell_that_nobody_has_entered_is_removed(root: Path, point: str) -> None:
    assert await killed_at(root, point) == []
    containment = opened(root)
    assert cells(containment) == [UUID]
    findings = await containment.find(thorough=False)
    assert (findings.adoptable, findings.unclear) == ((), ())
    assert cells(containment) == []
    containment.close()


async def test_a_launcher_that_comes_too_late_executes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    monkeypatch.setenv(GATE, str(gate))
    (pid,) = await killed_at(root, "launched")
    containment = opened(root)
    findings = await containment.find(thorough=False)
    assert (findings.adoptable, findings.unclear) == ((), ())
    assert cells(containment) == []
    await asyncio.to_thread(gate.write_text, "\n")
    await gone([pid])
    assert os.listdir(tmp_path) == ["gate"]  # noqa: PTH208 - no waiting
    containment.close()


@pytest.mark.parametrize("point", ["entered", "known"])
async def test_what_lives_is_found_with_what_is_written_on_its_cell(root: Path, point: str) -> None:
    (pid,) = await killed_at(root, point)
    containment = opened(root)
    (found,) = (await containment.find(thorough=False)).adoptable
    identity = Identity(pid, ticks(pid))
    # Of one that was started and not written down yet, the command line may be that of another program.
    command = METADATA.command if point == "known" else ()
    expected = Adoptable("r1", UUID, METADATA.recovery_metadata, command, identity, found.age)
    assert found == expected
    assert 0 <= found.age < 1000
    assert await containment.take_over(UUID, identity).end() is None
    await gone([pid])
    containment.close()


async def test_what_was_killed_last_is_gone(root: Path) -> None:
    (pid,) = await killed_at(root, "killed")
    await gone([pid])
    containment = opened(root)
    assert await containment.find(thorough=False) == await containment.find(thorough=False)
    assert cells(containment) == []
    containment.close()


async def test_a_leader_that_has_ended_is_not_replaced_by_another_session(root: Path) -> None:
    """The oldest leader of a session is told, with no command line: it is not what was started."""
    containment = opened(root)
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"setsid sh -c '{LAST}' & setsid sh -c '{LAST}' & sleep 0.01; {LAST}", 3)
    cell.led_by(Identity(inmate.pid, ticks(inmate.pid)), -1)
    inmate.kill()
    inmate.reap()
    (found,) = (await containment.find(thorough=False)).adoptable
    assert found.identity.pid in inmate.living()
    assert found.identity.start_time == min(map(ticks, inmate.living()))
    assert found.command == ()
    assert await cell.end() is None
    containment.close()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("version", b"2", "its cgroup is of a newer version (2)"),
        ("name", b"\xff", "what is written on its cgroup is damaged"),
        ("command", b"\xff", "what is written on its cgroup is damaged"),
        ("leader", b"no number", ""),
        ("leader", b"1", ""),
    ],
)
async def test_what_cannot_be_understood_is_unclear_and_lives_on(
    root: Path, name: str, value: bytes, reason: str
) -> None:
    containment = opened(root)
    cell = containment.create(METADATA)
    inmate = Inmate(cell, LAST)
    cell.led_by(Identity(inmate.pid, ticks(inmate.pid)), -1)
    cell._folder.set_attribute(name, value)
    findings = await containment.find(thorough=False)
    assert [each.reason for each in findings.unclear] == ([reason] if reason else [])
    assert [each.identity.pid for each in findings.adoptable] == ([] if reason else [inmate.pid])
    assert inmate.living() == {inmate.pid}
    assert await cell.end() is None
    inmate.reap()
    containment.close()


async def test_members_without_a_leader_are_unclear_and_live_on(root: Path) -> None:
    containment = opened(root)
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"sh -c '{LAST}' & {LAST}", 2)
    inmate.kill()
    inmate.reap()
    findings = await containment.find(thorough=False)
    assert findings.adoptable == ()
    assert [(each.identity, each.uuid, each.reason) for each in findings.unclear] == [
        (None, UUID, "its cgroup has no leader any more")
    ]
    assert len(inmate.living()) == 1
    assert await cell.end() is None
    containment.close()


async def test_what_was_moved_in_part_is_moved_by_the_next_daemon(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_workshop() as former:
        started = former.shell("setsid sh -c 'echo; exec sleep 1000' & sh -c 'echo; exec sleep 1000' & wait")
        for _ in range(2):
            await former.output.line()
        members = set(former.marked())
        containment = CgroupContainment(root, OWNER, by_session(Reaper()))
        with monkeypatch.context() as patch:
            patch.setattr(CgroupCell, "moved", dies)
            admitted = iter([True])
            admit = CgroupCell.admit
            patch.setattr(
                CgroupCell, "admit", lambda self, pid: admit(self, pid) if next(admitted, 0) else dies()
            )
            with pytest.raises(KeyboardInterrupt):
                containment.take_over(started.uuid, started.child.identity)
        containment.close()
        following = CgroupContainment(root, OWNER, by_session(Reaper()))
        cell = following.take_over(started.uuid, started.child.identity)
        assert set(cell.members()) == members
        # Once that is done, nobody is looked for outside any more.
        assert not cell.moving  # type: ignore[attr-defined]
        assert await cell.end() is None
        await started.exited()
        await started.child.end_tree()
        await eventually(lambda: not former.marked())
        following.close()


def dies(*_: object) -> None:
    raise KeyboardInterrupt
