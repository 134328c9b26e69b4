"""The echo: each line once with its name in front, and no reader of it hinders the daemon."""

import asyncio
import fcntl
import os
import re
import select
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.logs import LogFiles, console_echo
from instance_manager.adapters.logs.log import LogFile
from tests.support.patience import patience
from tests.support.processes import LagMeter, StartWild, ended, open_logs

MIB = 1 << 20

SKIPPED = re.compile(r"\[\S+\] \.\.\. (\d+) bytes not shown here, see the log file")


class Pipe:
    """A pipe in the place of stdout, read only when a test says so."""

    def __init__(self, size: int = 65536) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, size)
        os.set_blocking(self.reading, False)
        self._lines: list[str] = []
        self._rest = b""
        self._arrived = asyncio.Event()

    def close(self) -> None:
        for fd in (self.reading, self.writing):
            if fd >= 0:
                os.close(fd)

    def read(self) -> None:
        """Begin to read all the time."""
        asyncio.get_running_loop().add_reader(self.reading, self._read)

    def stop_reading(self) -> None:
        asyncio.get_running_loop().remove_reader(self.reading)

    def _read(self) -> None:
        self._rest += os.read(self.reading, 1 << 20)
        *lines, self._rest = self._rest.split(b"\n")
        self._lines += [line.decode() for line in lines]
        self._arrived.set()

    def take(self) -> list[str]:
        """Return what has come, and what is in the pipe."""
        while select.select([self.reading], [], [], 0)[0]:
            self._read()
        lines, self._lines = self._lines, []
        assert self._rest == b""
        return lines

    async def line(self, wanted: str) -> list[str]:
        """Wait for a line and return all up to it."""
        async with asyncio.timeout(patience(20)):
            while wanted not in self._lines:
                self._arrived.clear()
                await self._arrived.wait()
        end = self._lines.index(wanted) + 1
        lines, self._lines = self._lines[:end], self._lines[end:]
        return lines


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close()


@pytest.fixture
async def logs(tmp_path: Path, pipe: Pipe) -> AsyncIterator[LogFiles]:
    """Log files whose echo goes to the pipe, which is read."""
    async with open_logs(tmp_path, echo=pipe.writing) as opened:
        pipe.read()
        yield opened
        pipe.stop_reading()


def numbered(first: int, count: int) -> bytes:
    return b"".join(b"%099d\n" % number for number in range(first, first + count))


async def looked(each: LogFile, size: int) -> None:
    """Wait until a file has been looked at when it had this size."""
    async with asyncio.timeout(patience(20)):
        while each.size < size:
            await each.changed(each.version)


async def test_each_line_is_repeated_once_with_the_name_in_front(logs: LogFiles, pipe: Pipe) -> None:
    with logs.writer("a") as a, logs.writer("vol-e-0") as b:
        os.write(a, b"one\n\n")
        assert await pipe.line("[a] ") == ["[a] one", "[a] "]
        os.write(b, "zwei é\n".encode())
        assert await pipe.line("[vol-e-0] zwei é") == ["[vol-e-0] zwei é"]
        os.write(a, b"thr")
        os.write(b, b"next\n")
        assert await pipe.line("[vol-e-0] next") == ["[vol-e-0] next"]
        os.write(a, b"ee\rand\x0bmore\n")
        assert await pipe.line("[a] three\rand\x0bmore") == ["[a] three\rand\x0bmore"]
        for name in ("a", "vol-e-0"):
            logs.release(name)


async def test_what_was_in_a_log_before_is_not_repeated(logs: LogFiles, pipe: Pipe, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("long ago\n")
    for word in ("first", "second"):
        with logs.writer("a") as fd:
            os.write(fd, f"{word}\n".encode())
        logs.release("a")
        assert await pipe.line(f"[a] {word}") == [f"[a] {word}"]


async def test_an_unfinished_last_line_is_repeated_when_the_process_has_ended(
    logs: LogFiles, pipe: Pipe
) -> None:
    with logs.writer("a") as fd:
        os.write(fd, b"whole\nlast words")
        assert await pipe.line("[a] whole") == ["[a] whole"]
        logs.release("a")
        assert await pipe.line("[a] last words") == ["[a] last words"]


async def test_the_rest_is_repeated_when_the_daemon_ends(tmp_path: Path, pipe: Pipe) -> None:
    async with open_logs(tmp_path, echo=pipe.writing) as logs:
        pipe.read()
        with logs.writer("a") as fd:
            os.write(fd, numbered(0, 10_000) + b"last words")
    pipe.stop_reading()
    assert pipe.take() == [f"[a] {number:099d}" for number in range(10_000)] + ["[a] last words"]


async def test_a_stuck_reader_neither_blocks_nor_loses_a_line(
    tmp_path: Path, pipe: Pipe, lag: LagMeter
) -> None:
    async with open_logs(tmp_path, echo=pipe.writing) as logs:
        with logs.writer("a") as fd, logs.writer("b") as other:
            with lag.measuring():
                for block in range(3):  # more than pipe and daemon hold, less than may wait in the file
                    os.write(fd, numbered(block * 10_000, 10_000))
                    await looked(logs._logs["a"], (block + 1) * 1_000_000)
            assert lag.longest < patience(0.1)
            os.write(other, b"me too\n")
            pipe.read()
            got = await pipe.line(f"[a] {29_999:099d}")
            got += [] if "[b] me too" in got else await pipe.line("[b] me too")
            pipe.stop_reading()
            logs.release("a")
            logs.release("b")
    assert [line for line in got if line.startswith("[a]")] == [
        f"[a] {number:099d}" for number in range(30_000)
    ]
    assert got.count("[b] me too") == 1


async def test_what_is_more_than_may_wait_is_skipped_with_one_note_of_how_much(
    tmp_path: Path, pipe: Pipe
) -> None:
    async with open_logs(tmp_path, max_size=64 * MIB, echo=pipe.writing) as logs:
        with logs.writer("a") as fd:
            for block in range(10):
                os.write(fd, numbered(block * 10_000, 10_000))
                await looked(logs._logs["a"], (block + 1) * 1_000_000)
            pipe.read()
            got = await pipe.line(f"[a] {99_999:099d}")
            pipe.stop_reading()
            logs.release("a")
    (note,) = [line for line in got if SKIPPED.fullmatch(line)]
    at = got.index(note)
    begin, end = got[:at], got[at + 1 :]
    match = SKIPPED.fullmatch(note)
    assert match is not None
    assert begin == [f"[a] {number:099d}" for number in range(len(begin))]
    assert end == [f"[a] {number:099d}" for number in range(100_000 - len(end), 100_000)]
    assert int(match[1]) == (100_000 - len(begin) - len(end)) * 100


async def test_what_a_cut_takes_away_before_it_was_repeated_is_told_too(tmp_path: Path, pipe: Pipe) -> None:
    async with open_logs(tmp_path, max_size=MIB, echo=pipe.writing) as logs:
        with logs.writer("a") as fd:
            each = logs._logs["a"]
            for block in range(40):
                version = each.version
                os.write(fd, numbered(block * 1000, 1000))
                async with asyncio.timeout(patience(20)):
                    await each.changed(version)
            pipe.read()
            got = await pipe.line(f"[a] {39_999:099d}")
            pipe.stop_reading()
            logs.release("a")
    numbers = [int(line.removeprefix("[a] ")) for line in got if not SKIPPED.fullmatch(line)]
    notes = [match for line in got if (match := SKIPPED.fullmatch(line))]
    assert sum(int(note[1]) for note in notes) == (40_000 - len(numbers)) * 100 > 0
    assert numbers == sorted(set(numbers))


async def test_a_closed_pipe_ends_the_echo_and_nothing_else(tmp_path: Path, pipe: Pipe) -> None:
    async with open_logs(tmp_path, echo=pipe.writing) as logs:
        echo = logs._echo
        with logs.writer("a") as fd:
            lines = logs.read("a", follow=True, tail=None)
            os.close(pipe.reading)
            pipe.reading = -1
            for word in ("one", "two"):
                os.write(fd, f"{word}\n".encode())
                assert await anext(lines) == word
            logs.release("a")
            async with asyncio.timeout(patience(20)):
                assert [line async for line in lines] == []
        assert +logs.failure_counts == {}
    assert echo is not None
    assert echo._writer.broken


async def test_followers_end_and_logs_are_let_go_though_the_reader_is_stuck(
    tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_echo, "_ENDED_MOST", 3)
    monkeypatch.setattr("instance_manager.adapters.logs.files._ECHO_GRACE", 0.01)
    dropped: asyncio.Queue[LogFile] = asyncio.Queue()
    drop = LogFiles._drop

    def tell(logs: LogFiles, log: LogFile) -> None:
        drop(logs, log)
        dropped.put_nowait(log)

    monkeypatch.setattr(LogFiles, "_drop", tell)
    async with open_logs(tmp_path, echo=pipe.writing) as logs:
        assert logs._echo is not None
        logs._echo._writer.write(b"x" * (2 * MIB))
        assert logs._echo._is_stuck()
        with logs.writer("running") as fd:
            os.write(fd, b"line\n")
            for number in range(20):
                with logs.writer(f"p{number}") as other:
                    os.write(other, b"line\n")
                    lines = logs.read(f"p{number}", follow=True, tail=None)
                    assert await anext(lines) == "line"
                    logs.release(f"p{number}")
                    async with asyncio.timeout(patience(20)):
                        assert [line async for line in lines] == []
            async with asyncio.timeout(patience(20)):
                while len(logs._logs) > 4:
                    await dropped.get()
            assert list(logs._logs) == ["running", "p17", "p18", "p19"]
            logs.release("running")


@pytest.mark.parametrize("kind", ["socket", "file", "terminal"])
async def test_the_echo_takes_other_things_than_a_pipe(tmp_path: Path, kind: str) -> None:
    ours: socket.socket | None = None
    match kind:
        case "socket":
            ours, theirs = socket.socketpair()
            reading, writing = ours.detach(), theirs.detach()
        case "file":
            writing = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
            reading = os.open(tmp_path / "out", os.O_RDONLY)
        case _:
            reading, writing = os.openpty()
    begun = time.monotonic()
    async with open_logs(tmp_path / "logs", echo=writing) as logs:
        with logs.writer("a") as fd:
            os.write(fd, b"line\n" * 500)
            if kind == "socket":  # nobody reads a socket that has little room
                os.write(fd, b"x" * 99 + b"\n" + b"y\n" * 500_000)
            await looked(logs._logs["a"], 2500)
        assert os.get_blocking(writing)  # whoever shares it is not surprised
        logs.release("a")
    assert time.monotonic() - begun < patience(10)
    got = b""
    while len(got) < 2500 and (chunk := os.read(reading, 65536)):
        got += chunk
    assert got.replace(b"\r", b"").startswith(b"[a] line\n" * 200)
    os.close(reading)
    os.close(writing)


async def test_a_log_that_is_truncated_by_hand_is_repeated_on(
    logs: LogFiles, pipe: Pipe, tmp_path: Path
) -> None:
    with logs.writer("a") as fd:
        os.write(fd, b"a long line before\n")
        assert await pipe.line("[a] a long line before") == ["[a] a long line before"]
        os.truncate(tmp_path / "a.log", 0)
        os.write(fd, b"after\n")
        assert await pipe.line("[a] after") == ["[a] after"]
        logs.release("a")


async def test_the_echo_of_a_wild_logger_costs_little_and_stalls_nothing(
    tmp_path: Path, lag: LagMeter, wild: StartWild, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    enough = asyncio.Event()
    run = console_echo.ConsoleEcho._round

    def count(each: console_echo.ConsoleEcho) -> None:
        nonlocal rounds
        rounds += 1
        run(each)
        if rounds == 25:
            enough.set()

    monkeypatch.setattr(console_echo.ConsoleEcho, "_round", count)
    sink = os.open(os.devnull, os.O_WRONLY)  # it takes whatever it is given
    async with open_logs(tmp_path, echo=sink) as logs:
        processes = {name: wild(logs, name) for name in ("w1", "w2")}
        begun, before = time.monotonic(), time.process_time()
        with lag.measuring():
            async with asyncio.timeout(patience(20)):
                await enough.wait()
        cpu, wall = time.process_time() - before, time.monotonic() - begun
        for name, process in processes.items():
            await ended(process)
            logs.release(name)
    os.close(sink)
    assert wall >= 24 * 0.049
    assert cpu < patience(wall / 2), f"{cpu:.2f} s of {wall:.2f} s"
    assert lag.longest < patience(0.1)
