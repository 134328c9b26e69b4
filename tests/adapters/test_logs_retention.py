"""Logs of instances that are gone are removed; one that a process still fills never is."""

import asyncio
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from instance_manager.adapters.logs import LogFiles, opening, retention
from instance_manager.core.log_retention import LogLimits
from instance_manager.platform.background import Background
from tests.support.processes import DEADLINE, open_logs, raising

DAY = 86_400
WEEK = LogLimits(age=7 * DAY, size=0)

Aged = Callable[..., Path]


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    """Make a log that was last written some days ago."""

    def make(name: str, days: float, size: int = 4096) -> Path:
        path = tmp_path / f"{name}.log"
        path.write_bytes(b"x" * size)
        then = time.time() - days * DAY
        os.utime(path, (then, then))
        with path.open() as file:
            opening.mark(file.fileno())
        return path

    return make


@pytest.fixture(params=["lease", "no lease"])
def lease(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file system that grants leases, and with one that does not."""
    if request.param == "no lease":
        if os.geteuid() != 0:
            pytest.skip("without leases, only root can tell who writes a file")
        really = fcntl.fcntl

        def refuse(fd: int, command: int, argument: int = 0) -> int:
            if command == fcntl.F_SETLEASE:
                raise OSError(22, "Invalid argument")
            return really(fd, command, argument)

        monkeypatch.setattr(fcntl, "fcntl", refuse)


@pytest.fixture
def writer() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Start a process that holds a log as its output."""
    started: list[subprocess.Popen[bytes]] = []

    def start(path: Path) -> subprocess.Popen[bytes]:
        with path.open("ab") as file:
            started.append(subprocess.Popen(["/bin/sleep", "1000"], stdout=file))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def passed(logs: LogFiles) -> None:
    """Wait for a pass."""
    async with asyncio.timeout(DEADLINE):
        await logs.retention._pass()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_old_logs_are_removed_and_that_is_told(tmp_path: Path, aged: Aged) -> None:
    aged("old", 8)
    aged("new", 6)
    (tmp_path / "other.txt").touch()
    os.utime(tmp_path / "other.txt", (0, 0))
    async with open_logs(tmp_path, keep=WEEK) as logs:
        with capture_logs() as told:
            await passed(logs)
    assert left(tmp_path) == {"new.log", "other.txt"}
    (line,) = [line for line in told if line["event"] == "old logs removed"]
    assert (line["count"], line["kept"]) == (1, 1)
    assert (logs.retention.files, logs.retention.size, logs.retention.removed) == (1, 4096, 1)


def not_marked(path: Path) -> Path:
    """Make another program's log."""
    for name in os.listxattr(path):
        os.removexattr(path, name)
    return path


async def test_the_logs_of_others_are_not_touched(tmp_path: Path, aged: Aged) -> None:
    not_marked(aged("dpkg", 100))
    aged("r", 100)
    async with open_logs(tmp_path, keep=LogLimits(age=1, size=1)) as logs:
        await passed(logs)
        assert left(tmp_path) == {"dpkg.log"}
        assert logs.retention.files == 0


@pytest.mark.parametrize("marks", [True, False])
async def test_the_log_of_an_instance_is_known_after_its_end(
    tmp_path: Path, marks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its mark, by every daemon; where the file system has none, by the daemon that has seen the end."""
    if not marks:
        monkeypatch.setattr(os, "setxattr", raising(OSError(95, "Operation not supported")))
        monkeypatch.setattr(os, "getxattr", raising(OSError(95, "Operation not supported")))
    for number in range(2):
        async with open_logs(tmp_path) as logs:
            with logs.writer(f"r{number}"):
                pass
            logs.release(f"r{number}")
    async with open_logs(tmp_path, keep=WEEK) as logs:
        logs.retention.ended("r1", time.time() - 8 * DAY, failed=False)
        for number in range(2):
            os.utime(tmp_path / f"r{number}.log", (0, 0))
        await passed(logs)
    assert left(tmp_path) == (set() if marks else {"r0.log"})


async def test_an_adopted_log_is_marked(
    tmp_path: Path, aged: Aged, writer: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    path = not_marked(aged("r", 1))
    process = writer(path)
    async with open_logs(tmp_path) as logs:
        logs.adopt("r", process.pid)
        await asyncio.wait(logs._adoptions.values(), timeout=DEADLINE)
        assert opening.is_marked(path)
        logs.release("r")


@pytest.mark.parametrize("jump", [30 * DAY, -30 * DAY])
async def test_a_clock_that_is_set_makes_no_log_old(
    tmp_path: Path, aged: Aged, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    aged("r", 6)
    wall, uptime = time.time, retention._uptime
    async with open_logs(tmp_path, keep=WEEK) as logs:
        await passed(logs)
        monkeypatch.setattr(time, "time", lambda: wall() + jump)
        await passed(logs)
        assert left(tmp_path) == {"r.log"}
        monkeypatch.setattr(retention, "_uptime", lambda: uptime() + 2 * DAY)
        await passed(logs)
        assert left(tmp_path) == set()


@pytest.mark.usefixtures("lease")
async def test_what_a_process_still_fills_is_never_removed(
    tmp_path: Path, aged: Aged, writer: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    process = writer(aged("r", 100))
    aged("r", 100)
    aged("gone", 99)
    async with open_logs(tmp_path, keep=LogLimits(age=1, size=1)) as logs:
        await passed(logs)
        assert left(tmp_path) == {"r.log"}
        process.kill()
        process.wait()
        await passed(logs)
        assert left(tmp_path) == set()


async def test_the_log_of_an_instance_that_is_listed_is_kept_though_nobody_writes_it(
    tmp_path: Path, aged: Aged
) -> None:
    async with open_logs(tmp_path, keep=WEEK) as logs:
        with logs.writer("r"):
            pass
        aged("r", 100)
        await passed(logs)
        assert left(tmp_path) == {"r.log"}
        logs.release("r")
        await passed(logs)
        assert left(tmp_path) == {"r.log"}  # its age counts from the end of the instance


async def test_the_oldest_go_first_when_there_is_too_much_and_those_that_failed_last(
    tmp_path: Path, aged: Aged
) -> None:
    async with open_logs(tmp_path, keep=LogLimits(age=0, size=8192)) as logs:
        for name, days in (("failed", 9), ("a", 3), ("b", 2), ("c", 1)):
            aged(name, days)
            logs.retention.ended(name, time.time() - days * DAY, failed=name == "failed")
        await passed(logs)
    assert left(tmp_path) == {"failed.log", "c.log"}


@pytest.mark.usefixtures("lease")
async def test_one_that_is_opened_in_the_moment_it_is_removed_is_put_back(
    tmp_path: Path, aged: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aged("r", 100)
    looks = 0
    really = retention.is_written
    fd = -1

    def racing(looked: Path) -> bool:
        nonlocal looks, fd
        looks += 1
        if looks == 1:
            found = really(looked)
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            return found
        # Without leases only the outputs of processes are seen; it is one by now.
        return True

    monkeypatch.setattr(retention, "is_written", racing)
    async with open_logs(tmp_path, keep=WEEK) as logs:
        await passed(logs)
        assert left(tmp_path) == {"r.log"}
        os.write(fd, b"still here")
        os.close(fd)
    assert path.read_bytes().endswith(b"still here")


async def test_what_a_daemon_left_half_removed_is_finished_by_the_next(tmp_path: Path, aged: Aged) -> None:
    aside = tmp_path / retention._ASIDE
    aside.mkdir()
    aged("r", 1).rename(aside / "r.log")
    async with open_logs(tmp_path, keep=WEEK) as logs:
        await passed(logs)
    assert left(tmp_path) == set()


async def test_what_no_daemon_has_put_aside_does_not_keep_the_rest_there(tmp_path: Path, aged: Aged) -> None:
    aside = tmp_path / retention._ASIDE
    (aside / "a").mkdir(parents=True)
    (aside / "link").symlink_to("/nowhere")
    for name in ("r", "s", "t"):
        aged(name, 1).rename(aside / f"{name}.log")
    async with open_logs(tmp_path, keep=WEEK) as logs:
        await passed(logs)
    assert {path.name for path in aside.iterdir()} == {"a", "link"}


async def test_a_log_that_is_written_is_back_before_anything_is_adopted(tmp_path: Path, aged: Aged) -> None:
    aside = tmp_path / retention._ASIDE
    aside.mkdir()
    aged("r", 1).rename(aside / "r.log")
    async with open_logs(tmp_path, keep=WEEK) as logs:
        with (aside / "r.log").open("ab"):
            await logs.retention.put_back()
            assert left(tmp_path) == {"r.log"}


async def test_the_longest_name_is_removed_too_and_what_is_no_file_is_not(tmp_path: Path, aged: Aged) -> None:
    aged("n" * 251, 100)
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "link.log").symlink_to("/etc/passwd")
    async with open_logs(tmp_path, keep=LogLimits(age=1, size=1)) as logs:
        await passed(logs)
    assert left(tmp_path) == {"folder.log", "link.log"}


async def test_it_looks_at_the_start_and_after_deletes_and_goes_on_after_an_error(
    tmp_path: Path, aged: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PAUSE", 0.01)
    background = Background(first_delay=0.01)
    errors: list[Exception] = [OSError(5, "Input/output error")]
    scan = retention._scan
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def failing(directory: Path, known: Collection[str]) -> list[retention._Found]:
        if errors:
            raise errors.pop()
        loop.call_soon_threadsafe(ended.set)
        return scan(directory, known)

    monkeypatch.setattr(retention, "_scan", failing)
    aged("old", 8)
    async with open_logs(tmp_path, keep=WEEK) as logs:
        logs.retention.open(background)
        async with asyncio.timeout(DEADLINE):
            await ended.wait()
            ended.clear()
            logs.retention.ended("other", time.time(), failed=False)
            await ended.wait()
    assert background.works[retention.WORK].failures == 1
    assert left(tmp_path) == set()
    await background.close()


async def test_a_directory_that_is_not_there_holds_no_logs(tmp_path: Path) -> None:
    async with open_logs(tmp_path / "logs", keep=WEEK) as logs:
        (tmp_path / "logs").rmdir()
        await passed(logs)
        assert logs.retention.files == 0
