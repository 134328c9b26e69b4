import os
import signal
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from instance_manager.guard.restarts import FIRST_DELAY, LONGEST_DELAY, RECOVERED, Restarts
from tests.support.daemon import marked, unique
from tests.support.guard import PROGRAM, STUB, gone, guarding


async def test_what_dies_is_started_again_after_a_delay_that_doubles(tmp_path: Path) -> None:
    options = ("--restarts", "4")
    usual = {"FIRST_DELAY": str(FIRST_DELAY), "LONGEST_DELAY": str(LONGEST_DELAY)}
    command = (*STUB, "--exit", "3")
    async with guarding(tmp_path, *command, options=options, program=PROGRAM, environment=usual) as guard:
        assert await guard.ended() == 3
        await guard.logged("gave up")
        deaths, starts = guard.events("daemon died"), guard.events("daemon started")
        delays = [line["in_seconds"] for line in guard.events("daemon will be started again")]
        assert delays == [0.1, 0.2, 0.4, 0.8]
        assert [line["status"] for line in deaths] == ["code 3"] * 5
        for delay, death, start in zip(delays, deaths, starts[1:], strict=False):
            waited = datetime.fromisoformat(start["timestamp"]) - datetime.fromisoformat(death["timestamp"])
            assert delay <= waited.total_seconds() < delay + 2


def test_the_delay_grows_to_2_seconds_and_begins_anew_after_a_second_without_death() -> None:
    restarts = Restarts(limit=100, within=300)
    delays = [restarts.delay_after(ran=0.9, now=index) for index in range(9)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]
    assert restarts.delay_after(ran=1, now=10) == 0.1
    assert restarts.delay_after(ran=0.5, now=11) == 0.2


def test_only_restarts_within_the_time_count() -> None:
    restarts = Restarts(limit=2, within=300)
    assert restarts.delay_after(ran=0, now=0) is not None
    assert restarts.delay_after(ran=0, now=100) is not None
    assert restarts.delay_after(ran=0, now=300) is not None
    assert restarts.delay_after(ran=0, now=399) is None


def test_used_up_restarts_stay_so_until_it_has_run_for_long() -> None:
    restarts = Restarts(limit=1, within=300)
    assert restarts.delay_after(ran=0, now=0) is not None
    assert restarts.delay_after(ran=0, now=1) is None
    assert restarts.delay_after(ran=0, now=1000) is None
    assert restarts.delay_after(ran=RECOVERED, now=1100) is not None
    assert restarts.delay_after(ran=0, now=1101) is None


@pytest.mark.parametrize(
    ("ending", "code", "status", "advice"),
    [
        (("--exit", "3"), 3, "code 3", "its own last lines above say why"),
        (("--crash-after", "0"), 139, "signal SIGSEGV", "look for a core dump"),
        (("--crash-after", "0", "--crash-signal", "SIGKILL"), 137, "signal SIGKILL", "out-of-memory killer"),
    ],
)
async def test_it_gives_up_with_the_last_status_and_a_message(
    tmp_path: Path, ending: tuple[str, ...], code: int, status: str, advice: str
) -> None:
    async with guarding(tmp_path, *STUB, *ending, options=("--restarts", "1", "--within", "2")) as guard:
        assert await guard.ended() == code
        message = (await guard.logged("gave up"))["error"]
        assert f"died with {status} after 1 restarts within 2 minutes" in message
        assert advice in message
        assert "No instance lives" in message
        assert len(guard.events("daemon started")) == 2


@pytest.mark.parametrize("code", [0, 2])
async def test_an_end_that_a_restart_would_repeat_ends_the_guard_too(tmp_path: Path, code: int) -> None:
    async with guarding(tmp_path, *STUB, "--exit", str(code)) as guard:
        assert await guard.ended() == code
        assert (await guard.logged("daemon ended"))["status"] == f"code {code}"
        assert len(guard.events("daemon started")) == 1


async def test_killed_20_times_in_a_row_it_is_started_20_times_and_then_given_up(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, options=("--restarts", "20"), program=PROGRAM) as guard:
        pids = []
        for count in range(1, 22):
            pids.append(await guard.started(count))
            assert guard.children() == [pids[-1]]
            os.kill(pids[-1], signal.SIGKILL)
        assert await guard.ended() == 137
        await guard.logged("gave up")
        assert unique(pids)
        stamps = [line["timestamp"] for line in guard.lines]
        assert all(earlier <= later for earlier, later in pairwise(stamps))
        assert guard.records() == {}, "what is guarded leaves no record"


async def test_without_restarts_the_first_death_is_the_last(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, "--exit", "9", options=("--restarts", "0")) as guard:
        assert await guard.ended() == 9
        await guard.logged("gave up")
        assert len(guard.events("daemon started")) == 1


async def test_when_nothing_can_be_started_it_tries_again_and_says_why(tmp_path: Path) -> None:
    copy = tmp_path / "program.py"
    copy.write_text(
        "import sys\nsys.executable = '/no/python'\nfrom instance_manager.cli import main\nmain()\n"
    )
    program = (PROGRAM[0], str(copy))
    async with guarding(tmp_path, *STUB, options=("--restarts", "1"), program=program) as guard:
        assert await guard.ended() == 126
        message = (await guard.logged("gave up"))["error"]
        assert "the line above says why" in message
        errors = [line["error"] for line in guard.events("daemon cannot be started")]
        assert errors == ["[Errno 2] No such file or directory: '/no/python'"] * 2


async def test_killed_itself_it_leaves_what_it_guards_alone(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB) as guard:
        pid = await guard.started()
        await guard.printed("listening")
        assert await guard.stop(signal.SIGKILL) == -signal.SIGKILL
        assert marked(guard.marker) == [pid]
        os.kill(pid, signal.SIGTERM)
        await guard.printed("ending on SIGTERM")
        await gone([pid])
