"""Running a program to its end."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from instance_manager.platform.commands import CommandError, run, run_checked
from tests.support import processes
from tests.support.node import written
from tests.support.patience import patience

WITHIN = patience(30.0)


async def sh(script: str, within: float = WITHIN) -> tuple[str, str]:
    output = await run_checked(("/bin/sh", "-c", script), within, os.environ)
    return output.stdout, output.stderr


@pytest.mark.parametrize("printed", ["", "a", "a\n", "7", "7\n", "\n\n"])
async def test_what_is_printed_is_returned_as_it_is(printed: str) -> None:
    assert await sh(f"printf '{printed!s}'; echo x >&2") == (printed, "x\n")


async def test_more_than_a_pipe_holds_does_not_stop_it() -> None:
    out, err = await sh("head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2")
    assert (out, err) == ("x" * 300_000, "y" * 300_000)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo out; echo err >&2; exit 3", "err"),
        ("echo out; exit 3", "out"),
        ("exit 3", "/bin/sh ended with status 3"),
        ("kill -9 $$", "Killed"),
    ],
)
async def test_a_failure_says_why(script: str, text: str) -> None:
    with pytest.raises(CommandError) as error:
        await sh(script)
    assert text in str(error.value)


async def test_a_program_that_is_missing_is_a_failure() -> None:
    with pytest.raises(CommandError, match="no-such-program"):
        await run_checked(("/no-such-program",), WITHIN, os.environ)
    with pytest.raises(FileNotFoundError):
        await run(("/no-such-program",), WITHIN, os.environ)


async def test_what_hangs_is_killed_with_all_that_it_has_started(tmp_path: Path) -> None:
    descriptors = len(processes.descriptors())
    with pytest.raises(TimeoutError):
        await sh(f"sleep 1000 & echo $! > {tmp_path}/pid; wait", within=0.5)
    pid = int((tmp_path / "pid").read_text())
    async with asyncio.timeout(WITHIN):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await sh("true")
    assert len(processes.descriptors()) == descriptors


async def test_what_is_given_up_has_ended_when_that_is_told(tmp_path: Path) -> None:
    start = 'sleep 1000 & pids="$pids $!"'
    script = f"for _ in $(seq 100); do {start}; done; echo $pids > {tmp_path}/pids; wait"
    program = asyncio.create_task(sh(script))
    pids = await written(tmp_path / "pids")
    program.cancel()
    with pytest.raises(asyncio.CancelledError):
        await program
    assert not any(map(processes.lives, pids))


async def test_a_child_that_is_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    out, _ = await sh(f"sleep 1000 & echo $! > {tmp_path}/pid; echo done")
    assert out == "done\n"
    os.kill(int((tmp_path / "pid").read_text()), 9)


async def test_it_gets_the_environment_that_it_is_given_and_no_other() -> None:
    output = await run_checked(("env",), WITHIN, {"PATH": os.environ["PATH"], "SECRET": "x"})
    names = {each.partition("=")[0] for each in output.stdout.split()}
    assert {"SECRET", "PATH"} <= names
    assert "HOME" not in names
