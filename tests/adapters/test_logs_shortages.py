"""What is missing for a while, or breaks once, does no lasting damage to logs."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from instance_manager.adapters.logs import LogFiles, files, probe, trimmer
from instance_manager.adapters.logs.log import LogFile
from tests.support.disks import tmpfs
from tests.support.patience import patience
from tests.support.processes import eventually, open_logs
from tests.support.threads import no_thread

MIB = 1 << 20
DEADLINE = patience(20)


async def smaller(logs: LogFiles, name: str, size: int) -> None:
    """Wait until a log has been cut to less than a size."""
    async with asyncio.timeout(DEADLINE):
        each = logs._logs[name]
        while each.size >= size:
            await each.changed(each.version)


class Failures:
    """Waits until something has failed so often."""

    def __init__(self, logs: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: asyncio.Queue[str] = asyncio.Queue()
        failed = logs._background.failed

        def tell(name: str, error: BaseException) -> None:
            failed(name, error)
            self._seen.put_nowait(name)

        monkeypatch.setattr(logs._background, "failed", tell)

    async def of(self, *names: str) -> None:
        missing = set(names)
        async with asyncio.timeout(DEADLINE):
            while missing:
                missing.discard(await self._seen.get())


async def test_without_a_thread_logs_are_read_and_when_there_are_some_again_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_INTERVAL", 0.01)
    monkeypatch.setattr(trimmer, "_RETRY", 0.05)
    attempted = threading.Event()

    def attempt(_: Path) -> str:
        attempted.set()
        return ""

    monkeypatch.setattr(probe, "_reason_not_to_write", attempt)
    with no_thread(monkeypatch):
        logs = LogFiles(tmp_path, max_size=MIB)
        failures = Failures(logs, monkeypatch)
        logs.open()
        with capture_logs() as told, logs.writer("a") as fd:
            os.write(fd, (b"x" * 99 + b"\n") * 20_000)
            await failures.of("log-trim", "log-probe")
            async with asyncio.timeout(DEADLINE):
                lines = [line async for line in logs.read("a", follow=False, tail=5)]
        assert lines == ["x" * 99] * 5
        assert os.stat(tmp_path / "a.log").st_size == 2_000_000  # noqa: PTH116
        assert not attempted.is_set()
    shortages = [line for line in told if "no thread" in str(line.get("reason"))]
    assert {line["work"] for line in shortages} == {"log-trim", "log-probe"}
    await smaller(logs, "a", MIB)
    await eventually(attempted.is_set)
    await eventually(lambda: not logs._background.works["log-probe"].error)
    assert logs._background.works["log-trim"].error == ""
    logs.release("a")
    async with asyncio.timeout(DEADLINE):
        await logs.close()


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    with tmpfs(tmp_path / "little", "size=16k") as folder:
        yield folder


async def test_a_full_disk_below_stdout_ends_the_echo_for_as_long_as_it_is_full(
    tmp_path: Path, little: Path
) -> None:
    filling = little / "filling"
    filling.write_bytes(bytes(16 << 10))
    out = os.open(little / "out", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    async with open_logs(tmp_path / "logs", echo=out) as logs:
        with logs.writer("a") as fd:
            os.write(fd, b"one\ntwo\n")
            await eventually(lambda: logs.echo_lines_lost >= 2)
            assert logs.failure_counts["echo"] >= 1
            filling.unlink()
            os.write(fd, b"three\n")
            await eventually(lambda: os.fstat(out).st_size)
            logs.release("a")
    assert os.pread(out, 100, 0) == b"[a] three\n"
    assert logs.echo_lines_lost == 2
    os.close(out)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EAGAIN])
async def test_one_error_of_stdout_does_not_end_the_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    errors = [OSError(number, os.strerror(number))]
    write = os.write

    def failing(fd: int, data: bytes) -> int:
        if data.startswith(b"[a] ") and errors:
            raise errors.pop()
        return write(fd, data)

    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    async with open_logs(tmp_path / "logs", echo=out) as logs:
        monkeypatch.setattr(os, "write", failing)
        with logs.writer("a") as fd:
            write(fd, b"first\n")
            await eventually(lambda: not errors)
            write(fd, b"second\n")
            await eventually(lambda: b"second" in os.pread(out, 100, 0))
            logs.release("a")
    lost = number != errno.EAGAIN
    assert os.pread(out, 100, 0) == b"[a] first\n" * (not lost) + b"[a] second\n"
    assert logs.echo_lines_lost == lost
    os.close(out)


async def test_a_reader_of_the_echo_that_is_gone_is_told_once(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with capture_logs() as told:
        async with open_logs(tmp_path, echo=writing) as logs:
            for word in (b"one\n", b"two\n"):
                with logs.writer("a") as fd:
                    os.write(fd, word)
                logs.release("a")
                await eventually(lambda: logs._background.works["log-echo"].error and not logs._logs)
    os.close(writing)
    (line,) = [line for line in told if line["log_level"] == "error"]
    assert line["reason"] == "nobody reads the echo of the logs any more"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("nobody foresaw it")])
async def test_a_look_at_a_file_that_fails_once_ends_neither_its_following_nor_that_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(files, "_LOOK_RETRY", 0.01)
    errors = [error]
    look = LogFile.look

    def failing(each: LogFile) -> bool:
        if each.name == "a" and errors:
            raise errors.pop()
        return look(each)

    monkeypatch.setattr(LogFile, "look", failing)
    async with open_logs(tmp_path) as logs:
        with logs.writer("a") as a, logs.writer("b") as b:
            followers = {name: logs.read(name, follow=True, tail=None) for name in "ab"}
            os.write(a, b"one\n")
            os.write(b, b"one\n")
            async with asyncio.timeout(DEADLINE):
                for lines in followers.values():
                    assert await anext(lines) == "one"
                await eventually(lambda: not errors)
            os.write(a, b"two\n")
            os.write(b, b"two\n")
            async with asyncio.timeout(DEADLINE):
                for lines in followers.values():
                    assert await anext(lines) == "two"
                    await lines.aclose()
            logs.release("a")
            logs.release("b")


@pytest.mark.parametrize("hanging", ["probe", "cut"])
async def test_a_file_system_that_hangs_does_not_keep_the_daemon_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    answer, asked = threading.Event(), threading.Event()

    def hang(*_: object) -> str:
        asked.set()
        answer.wait()
        raise OSError(errno.EIO, "at last")

    monkeypatch.setattr(probe, "_INTERVAL", 0.01)
    monkeypatch.setattr(probe, "_LATE", 0.01)
    monkeypatch.setattr(files, "_END_PATIENCE", 0.1)
    if hanging == "probe":
        monkeypatch.setattr(probe, "_reason_not_to_write", hang)
    else:
        monkeypatch.setattr(trimmer, "drop_head", hang)
    logs = LogFiles(tmp_path, max_size=MIB)
    logs.open()
    with logs.writer("a") as fd:
        os.write(fd, b"x" * MIB)
        lines = logs.read("a", follow=True, tail=None)
        reading = asyncio.ensure_future(anext(lines))
        await eventually(asked.is_set)
        await eventually(lambda: hanging != "probe" or logs.failure_counts["write"])
        begun = time.monotonic()
        async with asyncio.timeout(DEADLINE):
            await logs.close()
        assert time.monotonic() - begun < patience(10)
    reading.cancel()
    answer.set()
