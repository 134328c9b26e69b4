"""A log directory that cannot be written is noticed although nobody but the processes writes there."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from instance_manager.adapters.logs import LogFiles, probe
from tests.support.disks import tmpfs
from tests.support.processes import DEADLINE, open_logs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with tmpfs(tmp_path / "disk", "size=64k") as folder:
        yield folder


class Told:
    """What has been logged."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()

    def __call__(self, _logger: object, _level: str, event: Any) -> Any:
        self.events.append(event)
        self._arrived.set()
        raise structlog.DropEvent

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for an event."""
        async with asyncio.timeout(DEADLINE):
            while not (found := [event for event in self.events if event["event"] == name]):
                self._arrived.clear()
                await self._arrived.wait()
        return found[-1]


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    told = Told()
    with structlog.testing.capture_logs(processors=[told]):
        yield told


class Attempts:
    """Counts the attempts to write, lets one wait for the next, and keeps them off the disk for a while."""

    def __init__(self, really: Callable[[Path], str]) -> None:
        self._really = really
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Semaphore(0)
        self._under_way = threading.Lock()
        self._resting = False

    def __call__(self, directory: Path) -> str:
        with self._under_way:
            reason = "" if self._resting else self._really(directory)
        self._loop.call_soon_threadsafe(self._ended.release)
        return reason

    @contextmanager
    def resting(self) -> Iterator[None]:
        """No attempt has a file open meanwhile: a file system is not remounted while one is written."""
        with self._under_way:
            self._resting = True
        yield
        self._resting = False

    async def some(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE):
            for _ in range(count):
                await self._ended.acquire()


@pytest.fixture
async def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    attempts = Attempts(probe._reason_not_to_write)
    monkeypatch.setattr(probe, "_reason_not_to_write", attempts)
    monkeypatch.setattr(probe, "_INTERVAL", 0.01)
    monkeypatch.setattr(probe, "_LATE", 0.2)
    return attempts


@pytest.fixture
async def logs(disk: Path, attempts: Attempts, told: Told) -> AsyncIterator[LogFiles]:
    del attempts, told
    async with open_logs(disk) as opened:
        yield opened


async def test_a_full_disk_is_counted_and_told_once_and_so_is_its_end(
    logs: LogFiles, disk: Path, told: Told, attempts: Attempts
) -> None:
    filling = disk / "filling"
    filling.write_bytes(b"x" * (64 << 10))
    trouble = await told.event("log trouble")
    assert (trouble["kind"], trouble["reason"]) == ("write", os.strerror(errno.ENOSPC))
    counted = logs.failure_counts["write"]
    await attempts.some(3)
    assert logs.failure_counts["write"] > counted
    filling.unlink()
    await told.event("logs can be written again")
    assert [event["event"] for event in told.events] == ["log trouble", "logs can be written again"]


async def test_when_logs_can_be_written_again_those_that_are_lost_all_the_same_are_named(
    logs: LogFiles, disk: Path, told: Told
) -> None:
    filling = disk / "filling"
    filling.write_bytes(b"x" * (64 << 10))
    await told.event("log trouble")
    (disk / "a.log").symlink_to("elsewhere")  # which is no log
    with logs.writer("a"):
        pass
    assert (await told.event("the logs of a process are lost for its lifetime"))["name"] == "a"
    filling.unlink()
    again = await told.event(
        "logs can be written again, but not those of the processes that were started without one"
    )
    assert again["lost"] == ["a"]
    logs.release("a")
    assert "logs can be written again" not in [event["event"] for event in told.events]


async def test_a_directory_that_has_become_read_only_is_told(
    logs: LogFiles, disk: Path, told: Told, attempts: Attempts
) -> None:
    del logs
    with attempts.resting():
        remount = await asyncio.create_subprocess_exec("mount", "-o", "remount,ro", str(disk))
        assert await remount.wait() == 0
    trouble = await told.event("log trouble")
    assert (trouble["kind"], trouble["reason"]) == ("write", os.strerror(errno.EROFS))


async def test_a_file_system_that_does_not_answer_is_told_and_nobody_waits_for_it(
    logs: LogFiles, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()

    def hanging(_: Path) -> str:
        answer.wait()
        return ""

    monkeypatch.setattr(probe, "_reason_not_to_write", hanging)
    trouble = await told.event("log trouble")
    assert "has not answered" in trouble["reason"]
    with logs.writer("a"):
        pass
    logs.release("a")
    answer.set()
    await told.event("logs can be written again")


async def test_a_disk_that_can_be_written_is_no_trouble_and_nothing_is_left_on_it(
    logs: LogFiles, disk: Path, attempts: Attempts
) -> None:
    await attempts.some(3)
    assert not +logs.failure_counts
    assert os.listdir(disk) == []  # noqa: PTH208 - pathlib would be another thing to await


@pytest.mark.skipif(os.geteuid() != 0, reason="/proc says to root only that it has no such files")
async def test_a_file_system_without_nameless_files_inconclusive() -> None:
    assert probe._reason_not_to_write(Path("/proc")) == ""
