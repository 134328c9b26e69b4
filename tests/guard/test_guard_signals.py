import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from instance_manager.guard import log
from instance_manager.platform import writer as platform_writer
from tests.support.daemon import BIN
from tests.support.guard import PROGRAM, STUB, children_of, guarding, status, strings

FORWARDED = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT]
TAKING_THE_TERMINAL = ("sh", "-c", 'exec setsid --ctty "$@" <&2', "sh")
"""Makes the terminal on stderr the controlling one of a session of its own."""


async def test_each_signal_is_forwarded_once(tmp_path: Path) -> None:
    async with guarding(tmp_path, "count-signals", program=PROGRAM) as guard:
        await guard.printed("counting")
        for count, number in enumerate(FORWARDED, 1):
            guard.send(number)
            await guard.logged("signal forwarded", count)
            await guard.printed(number.name)
        assert await guard.ended() == 0
        assert guard.stdout == ["counting", *(number.name for number in FORWARDED)]


async def test_ctrl_c_on_a_terminal_arrives_once_and_the_log_is_text(tmp_path: Path) -> None:
    master, slave = os.openpty()

    async with guarding(
        tmp_path, "count-signals", program=PROGRAM, stderr=slave, through=TAKING_THE_TERMINAL
    ) as guard:
        os.close(slave)
        await guard.printed("counting")
        screen = ""
        for key, name in ((b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")):
            os.write(master, key)
            await guard.printed(name)
            # The next key makes the terminal forget what nobody has read yet.
            while f"Z [info   ] signal forwarded signal={name} daemon=" not in screen:
                screen += (await asyncio.to_thread(os.read, master, 65536)).decode()
        assert await guard.ended() == 0
        assert guard.stdout == ["counting", "SIGINT", "SIGQUIT"]
        os.close(master)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_ends_it_with_the_code_of_what_it_guards(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with guarding(tmp_path, *STUB, "--stop-after", "0.1", "--stop-exit", "7") as guard:
        await guard.printed("listening")
        assert await guard.stop(number) == 7
        assert (await guard.logged("daemon ended"))["status"] == "code 7"


async def test_a_death_after_a_stop_signal_is_final(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB, "--ignore", "SIGTERM") as guard:
        await guard.printed("listening")
        guard.send(signal.SIGTERM)
        await guard.logged("signal forwarded")
        os.kill(await guard.started(), signal.SIGKILL)
        assert await guard.ended() == 137
        assert len(guard.events("daemon started")) == 1


async def test_stop_signals_that_are_ignored_are_forwarded_again_and_again(
    tmp_path: Path,
) -> None:
    async with guarding(tmp_path, *STUB, "--ignore", "SIGTERM") as guard:
        await guard.printed("listening")
        for count in (1, 2, 3):
            guard.send(signal.SIGTERM)
            await guard.logged("signal forwarded", count)
        assert guard.process.returncode is None
        assert await guard.stop(signal.SIGINT) == 0


async def test_after_a_signal_that_kills_without_asking_for_the_end_it_restarts(
    tmp_path: Path,
) -> None:
    async with guarding(tmp_path, *STUB) as guard:
        await guard.printed("listening")
        guard.send(signal.SIGUSR1)
        assert (await guard.logged("daemon died"))["status"] == "signal SIGUSR1"
        await guard.printed("listening", 2)
        assert await guard.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_a_stop_signal_during_the_back_off_ends_it_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    slow = {"FIRST_DELAY": "1000"}
    async with guarding(tmp_path, *STUB, "--exit", "3", program=PROGRAM, environment=slow) as guard:
        await guard.logged("daemon will be started again")
        guard.send(signal.SIGHUP)
        await guard.logged("signal dropped: the daemon does not run")
        assert await guard.stop(number) == 128 + number
        await guard.logged("ended before the daemon was started again")


async def test_what_it_guards_starts_with_clean_signals_in_its_own_group(tmp_path: Path) -> None:
    spoiling = ("env", "--ignore-signal=INT,USR1,CHLD", "--block-signal=ALRM")
    async with guarding(tmp_path, *STUB, "--never-ready", through=spoiling) as guard:
        pid = await guard.started()
        await guard.printed("never listens")
        assert os.getpgid(pid) == pid
        assert int(status(pid)["SigBlk"], 16) == 0
        by_python = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
        ordinary = (1 << 31) - 1  # the two after them belong to the C library
        assert int(status(pid)["SigIgn"], 16) & ordinary == by_python
        assert await guard.stop(signal.SIGINT) == 0, "SIGCHLD arrives though it was ignored"


async def test_under_nohup_a_hangup_is_nobodys_concern(tmp_path: Path) -> None:
    nohup = ("env", "--ignore-signal=HUP")
    async with guarding(tmp_path, "count-signals", program=PROGRAM, through=nohup) as guard:
        await guard.printed("counting")
        guard.send(signal.SIGHUP)
        guard.send(signal.SIGUSR1)
        await guard.printed("SIGUSR1")
        assert int(status(await guard.started())["SigIgn"], 16) & 1 << signal.SIGHUP - 1
        assert await guard.stop(signal.SIGQUIT) == 0
        assert guard.stdout == ["counting", "SIGUSR1", "SIGQUIT"]


async def test_what_it_guards_is_told_who_guards_it_and_where_its_state_is(tmp_path: Path) -> None:
    async with guarding(tmp_path, *STUB) as guard:
        pid = await guard.started()
        await guard.printed("listening")
        environment = strings(pid, "environ")
        assert f"INSTANCE_MANAGER_GUARD={guard.pid}" in environment
        assert f"INSTANCE_MANAGER_DAEMON_STATE_DIR={tmp_path}" in environment
        assert await guard.stop() == 0


def full_pipe() -> tuple[int, int]:
    """Return the ends of a pipe to which the next write would block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.parametrize("own", [True, False])
def test_lines_that_find_no_room_are_counted_in_the_next_one(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own:  # as if the pipe belonged to somebody else and could not be opened again
        monkeypatch.setattr(platform_writer, "_open_nonblocking", lambda fd: fd)
    reader, writer = full_pipe()
    guard_log = log.Log(writer)
    for number in range(3):
        guard_log.info("lost", number=number)
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass
    for event in ("first", "second"):
        guard_log.warning(event)
    first, second = map(json.loads, os.read(reader, 65536).splitlines())
    assert (first["event"], first["level"], first["lines_lost"]) == ("first", "warning", 3)
    assert (second["event"], second.get("lines_lost")) == ("second", None)
    for descriptor in {reader, writer, guard_log._writer.fd}:
        os.close(descriptor)


async def test_nobody_reading_its_log_stops_nothing(tmp_path: Path) -> None:
    reader, writer = full_pipe()
    async with guarding(tmp_path, *STUB, "--exit-after", "0.1", "--exit", "5", stderr=writer,
                        options=("--restarts", "1")) as guard:  # fmt: skip
        os.close(writer)
        await guard.printed("listening", 2)
        assert await guard.ended() == 5
        os.close(reader)


async def test_as_the_first_process_of_a_container_it_guards_as_well(
    tmp_path: Path, isolated: Sequence[str]
) -> None:
    async with guarding(tmp_path, *STUB, "--helpers", "2", program=(*isolated, str(BIN))) as guard:
        assert await guard.started() == 2
        assert (await guard.logged("daemon started"))["pid"] == 1
        await guard.printed("listening")
        (first,) = guard.children()
        crashed = children_of(first)[0]
        os.kill(crashed, signal.SIGSEGV)
        await guard.printed("listening", 2)
        os.kill(first, signal.SIGTERM)
        assert (await guard.logged("daemon ended"))["status"] == "code 0"
        assert await guard.ended() == 0
