import asyncio
import itertools
import os
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from instance_manager.guard import proc
from instance_manager.guard.log import Log
from instance_manager.guard.records import MOST, ExitRecords
from instance_manager.guard.status import Status
from instance_manager.platform.linux import boot_id
from tests.support.guard import PROGRAM, STUB, Arrivals, Guard, gone, guarding, helpers, record_name
from tests.support.patience import patience

LIMIT_KIB = 15 * 1024


async def kill(guard: Guard, pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Kill orphans, and wait until their records are there."""
    names = {record_name(pid) for pid in pids}
    with Arrivals(guard.exits) as arrivals:
        for pid in pids:
            os.kill(pid, number)
        await arrivals.until(names.issubset)


async def test_an_orphan_that_ends_is_reaped_and_leaves_its_status(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, "--helpers", "2") as guard:
        pids = helpers(await guard.printed("helper", 2))
        assert sorted(guard.children()) == sorted([await guard.started(), *pids])
        names = [record_name(pid) for pid in pids]
        await kill(guard, pids[:1], signal.SIGKILL)
        await kill(guard, pids[1:], signal.SIGUSR2)
        assert guard.records() == {names[0]: "signal SIGKILL\n", names[1]: "signal SIGUSR2\n"}
        assert [(guard.exits / name).stat().st_mode & 0o777 for name in names] == [0o600, 0o600]
        assert guard.exits.stat().st_mode & 0o777 == 0o700
        assert await guard.stop() == 0


async def test_exit_codes_of_orphans_are_kept_and_no_zombie_is_left(tmp_path: Path) -> None:
    async with guarding(tmp_path, "churn", "256", program=PROGRAM) as guard:
        await guard.logged("daemon started")
        with Arrivals(guard.exits) as arrivals:
            arrivals.seen += guard.records()
            await guard.printed("churned")
            await arrivals.until(lambda seen: len(set(seen)) >= 256)
        assert Counter(guard.records().values()) == Counter(f"code {code}\n" for code in range(256))
        assert await guard.stop() == 143


async def test_of_many_that_end_at_once_none_is_overlooked(tmp_path: Path) -> None:
    async with guarding(tmp_path, "churn", "200", program=PROGRAM) as guard:
        pid = await guard.started()
        guard.send(signal.SIGSTOP)
        await guard.printed("churned")
        guard.send(signal.SIGCONT)  # it finds one SIGCHLD, however many there were
        await all_reaped(guard, besides=[pid])
        assert len(guard.records()) == 200
        assert await guard.stop() == 143


async def test_a_real_time_signal_is_told_by_its_number(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, "--helpers", "1") as guard:
        (pid,) = helpers(await guard.printed("helper"))
        names = [record_name(pid)]
        with Arrivals(guard.exits) as arrivals:
            os.kill(pid, signal.SIGRTMIN + 1)
            await arrivals.until(set(names).issubset)
        assert guard.records() == {names[0]: f"signal {signal.SIGRTMIN + 1}\n"}
        assert await guard.stop() == 0


async def test_what_a_dead_program_leaves_runs_on_as_a_child_of_the_guard(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, "--helpers", "1") as guard:
        await guard.printed("listening")
        os.kill(await guard.started(), signal.SIGKILL)
        await guard.printed("listening", 2)
        pids = helpers(await guard.printed("helper", 2))
        assert sorted(guard.children()) == sorted([await guard.started(2), *pids])
        await kill(guard, pids)
        assert await guard.stop() == 0


async def test_what_is_left_when_the_program_has_ended_in_order_is_ended(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, "--helpers", "1") as guard:
        await guard.printed("listening")
        (pid,) = helpers(await guard.printed("helper"))
        assert await guard.stop() == 0
        await gone([pid])
        assert (await guard.logged("ending instances"))["instances"] == 1


@pytest.mark.timeout(300)
async def test_many_orphans_cost_neither_memory_nor_descriptors(
    tmp_path: Path, sized: Callable[[int, int], int]
) -> None:
    rounds, each = sized(2, 34), 300
    options = ("--restarts", str(rounds))
    measured = []
    async with guarding(tmp_path, "churn", str(each), program=PROGRAM, options=options) as guard:
        for count in range(1, rounds + 1):
            pid = await guard.started(count)
            await guard.printed("churned", count)
            await all_reaped(guard, besides=[pid])
            measured.append((guard.descriptors(), guard.resident_kib()))
            kept = len(guard.records())
            assert kept == each * count or (MOST * 7 // 8 <= kept <= MOST and each * count > MOST)
            os.kill(pid, signal.SIGKILL)
        await guard.printed("churned", rounds + 1)
        assert await guard.stop() == 143
    descriptors, memory = zip(*measured, strict=True)
    assert len(set(descriptors)) == 1, descriptors
    assert max(memory) < LIMIT_KIB, memory
    assert memory[-1] - memory[0] < 1024, memory


async def test_a_guard_of_the_installed_program_is_small(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB) as guard:
        await guard.printed("listening")
        assert guard.resident_kib() < LIMIT_KIB
        assert await guard.stop() == 0


async def test_records_of_this_boot_are_kept_and_those_of_another_dropped(tmp_path: Path) -> None:
    exits = tmp_path / "exits"
    exits.mkdir()
    for boot in (boot_id(), "another"):
        (exits / "boot_id").write_text(f"{boot}\n")
        (exits / "12.3456").write_text("code 3\n")
        (exits / "12.notes").write_text("not a record")
        async with guarding(tmp_path, *STUB, "--exit", "0") as guard:
            assert await guard.ended() == 0
            assert ("12.3456" in guard.records()) == (boot != "another")
            assert "12.notes" in guard.records()
            assert (exits / "boot_id").read_text() == f"{boot_id()}\n"


def test_of_too_many_records_the_oldest_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(1)
    monkeypatch.setattr(proc, "start_time", lambda _: str(next(times)))
    records = ExitRecords(str(tmp_path), Log(), most=16)
    records.open()
    for number in range(1, 41):
        records.write(7, Status(code=number))
        os.utime(tmp_path / "exits" / f"7.{number}", ns=(number, number))
        kept = sorted(int(path.suffix[1:]) for path in (tmp_path / "exits").glob("7.*"))
        assert len(kept) <= 16
        assert kept == list(range(kept[0], number + 1))
        assert len(kept) >= min(number, 14)
    assert records.lost == 0


async def test_without_a_folder_for_records_it_says_so_once_and_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    async with guarding(blocked, *STUB, "--helpers", "3") as guard:
        await guard.printed("listening")
        pids = helpers(await guard.printed("helper", 3))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        os.kill(await guard.started(), signal.SIGKILL)
        await guard.printed("listening", 2)
        again = helpers(await guard.printed("helper", 6))[3:]
        told = "exit records cannot be written: how adopted processes end will be unknown to the daemon"
        assert [line["error"] for line in guard.events(told)] == ["Not a directory"]
        blocked.unlink()
        await all_reaped(guard, besides=[await guard.started(2), *again])
        os.kill(again[0], signal.SIGKILL)
        assert (await guard.logged("exit records are written again"))["lost"] == 3
        await kill(guard, again[1:])
        assert len(guard.events("exit records are written again")) == 1
        assert (guard.exits / "boot_id").read_text() == f"{boot_id()}\n"
        assert await guard.stop() == 0


async def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    async with guarding(tmp_path / "state", *STUB, "--helpers", "1") as guard:
        (pid,) = helpers(await guard.printed("helper"))
        name = record_name(pid)
        shutil.rmtree(tmp_path / "state")
        os.kill(pid, signal.SIGKILL)
        await all_reaped(guard, besides=[await guard.started()])
        assert guard.records() == {name: "signal SIGKILL\n"}
        assert (guard.exits / "boot_id").read_text() == f"{boot_id()}\n"
        assert await guard.stop() == 0


async def test_a_full_disk_loses_records_and_nothing_else(tmp_path: Path) -> None:
    full = ("prlimit", "--fsize=0:unlimited")
    async with guarding(tmp_path, *STUB, "--helpers", "2", through=full) as guard:
        pids = helpers(await guard.printed("helper", 2))
        os.kill(pids[0], signal.SIGKILL)
        await all_reaped(guard, besides=[await guard.started(), pids[1]])
        assert guard.records() == {}
        resource.prlimit(guard.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        name = record_name(pids[1])
        await kill(guard, pids[1:])
        assert guard.records() == {name: "signal SIGKILL\n"}
        assert (await guard.logged("exit records are written again"))["lost"] == 1
        assert await guard.stop() == 0


async def all_reaped(guard: Guard, besides: Iterable[int]) -> None:
    """Wait until the guard has no other children; nothing tells, so look until it is so."""
    async with asyncio.timeout(patience(20)):
        while set(guard.children()) - set(besides):  # noqa: ASYNC110
            await asyncio.sleep(0)
