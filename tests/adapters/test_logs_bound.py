"""The bound of a log file: kept while a process writes as fast as it can, and no recent line lost."""

import asyncio
import itertools
import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.logs import trim, trimmer
from instance_manager.adapters.logs.trim import Cut, drop_head
from tests.support.patience import patience
from tests.support.processes import LagMeter, StartWild, ended, open_logs

MIB = 1 << 20
MEMORY = Path("/dev/shm")
NOTE = re.compile(rb"\[\d+ bytes of older lines dropped\] *| *")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A directory on a file system that cuts blocks out of files."""
    fd = os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT)
    os.write(fd, bytes(MIB))
    can = trim._collapse(fd, os.fstatvfs(fd).f_bsize)
    os.close(fd)
    if not can:
        pytest.skip(f"the file system of {tmp_path} cannot cut blocks out of files")
    return tmp_path


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that cannot."""
    if not MEMORY.is_dir():
        pytest.skip("there is no tmpfs at /dev/shm")
    folder = MEMORY / f"{tmp_path.parent.name}-{tmp_path.name}"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.fixture(params=["disk", "memory"])
def directory(request: pytest.FixtureRequest) -> Path:
    """A directory on either."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Path)
    return found


class Cuts:
    """Counts the cuts, and tells when there have been so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wanted: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._wanted = wanted
        self._enough = asyncio.Event()
        self.all: list[Cut] = []
        self.threads: set[str] = set()
        monkeypatch.setattr(trimmer, "drop_head", self._drop_head)

    def _drop_head(self, fd: int, count: int, most: int) -> Cut:
        cut = drop_head(fd, count, most)
        self.threads.add(threading.current_thread().name)
        self.all.append(cut)
        if len(self.all) == self._wanted:
            self._loop.call_soon_threadsafe(self._enough.set)
        return cut

    async def enough(self) -> None:
        async with asyncio.timeout(patience(30)):
            await self._enough.wait()


class Sampler:
    """Looks at the size of a file all the time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.largest = 0
        self._look()

    def _look(self) -> None:
        self.largest = max(self.largest, self._path.stat().st_size)
        self._handle = asyncio.get_running_loop().call_later(0.002, self._look)

    def stop(self) -> None:
        self._handle.cancel()


def irregularities(lines: list[bytes]) -> int:
    """Return how many numbered lines do not follow the one before."""
    numbers = [int(line[:12]) if re.fullmatch(rb"\d{12} x{87}", line) else -1 for line in lines]
    return sum(after != before + 1 for before, after in itertools.pairwise(numbers))


async def test_a_wild_writer_stays_under_the_bound_and_no_recent_line_is_lost_or_torn(
    directory: Path, monkeypatch: pytest.MonkeyPatch, lag: LagMeter, wild: StartWild
) -> None:
    cuts = Cuts(monkeypatch, wanted=6)
    async with open_logs(directory, max_size=32 * MIB) as logs:
        process = wild(logs, "wild")
        sampler = Sampler(directory / "wild.log")
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        with lag.measuring():
            await cuts.enough()
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
        await ended(process)
        sampler.stop()
        logs.release("wild")
    content = (directory / "wild.log").read_bytes()
    *numbered, last = content.removesuffix(b"\n").split(b"\n")
    assert last.startswith(b"stub replica unnamed ending on SIGTERM")
    numbered = [line for line in numbered if not line.startswith(b"stub")]
    if NOTE.fullmatch(numbered[0]):
        del numbered[0]
    if directory.is_relative_to(MEMORY):
        # A few microseconds of each cut are lost there, and more if the copy is too slow.
        assert irregularities(numbered) <= 10
    else:
        assert irregularities(numbered) == 0
    assert len(numbered) * 100 > 12 * MIB
    assert 24 * MIB < sampler.largest <= 32 * MIB
    assert +logs.failure_counts == {}
    assert all(name.startswith("logs-") for name in cuts.threads)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu < patience(wall / 2), f"{cpu:.2f} s of {wall:.2f} s"
    assert lag.longest < patience(0.1)


async def test_a_file_that_is_over_the_bound_from_the_start_is_cut_when_it_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"".join(b"%099d\n" % number for number in range(30_000)))
    cuts = Cuts(monkeypatch, wanted=1)
    async with open_logs(tmp_path, max_size=MIB) as logs:
        with logs.writer("a"):
            await cuts.enough()
        logs.release("a")
    assert path.stat().st_size <= MIB * 3 // 4
    lines = path.read_bytes().splitlines()
    assert [int(line) for line in lines[1:]] == list(range(30_000 - len(lines) + 1, 30_000))


async def test_a_file_that_cannot_be_cut_is_tried_again_later_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    again = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(*_: int) -> Cut:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            loop.call_soon_threadsafe(again.set)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(trimmer, "drop_head", fail)
    monkeypatch.setattr(trimmer, "_RETRY", 0.2)
    async with open_logs(tmp_path, max_size=MIB) as logs:
        begun = time.monotonic()
        with logs.writer("a") as fd:
            os.write(fd, b"x" * MIB)
        async with asyncio.timeout(patience(20)):
            await again.wait()
        assert time.monotonic() - begun >= 0.19
        logs.release("a")
    assert logs.failure_counts["trim"] >= 1


# --- one cut ---


def cut(path: Path, content: bytes, count: int) -> tuple[Cut, bytes]:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    try:
        return drop_head(fd, count, 1 << 40), path.read_bytes()
    finally:
        os.close(fd)


def numbered_lines(count: int, length: int = 100) -> bytes:
    return b"".join(b"%0*d\n" % (length - 1, number) for number in range(count))


def test_a_cut_drops_old_lines_only_and_leaves_whole_lines(directory: Path) -> None:
    content = numbered_lines(1000)
    done, left = cut(directory / "a.log", content, 50_000)
    first = left[done.first :]
    assert content.endswith(first)
    assert len(first) % 100 == 0
    assert 49_000 <= len(first) <= 56_000
    assert content[done.dropped + done.first :] == first
    assert NOTE.fullmatch(left[: done.first].removesuffix(b"\n"))


def test_the_line_that_was_cut_through_is_blanked_by_a_note_of_the_same_length(disk: Path) -> None:
    content = numbered_lines(200, 1000)
    done, left = cut(disk / "a.log", content, 8192)
    assert done == Cut(8192, 808)
    assert left == b"[8192 bytes of older lines dropped]".ljust(807) + b"\n" + content[9000:]


def test_a_line_whose_rest_is_too_short_for_the_note_is_blanked(disk: Path) -> None:
    content = numbered_lines(1000)
    done, left = cut(disk / "a.log", content, 4096)
    assert done == Cut(4096, 4)
    assert left == b"   \n" + content[4100:]


def test_a_cut_between_two_lines_blanks_nothing(directory: Path) -> None:
    content = numbered_lines(1024, 64)
    done, left = cut(directory / "a.log", content, 8192)
    assert done == Cut(8192, 0)
    assert left == content[8192:]


def test_the_rest_of_a_line_without_an_end_in_sight_stays_behind_the_note(disk: Path) -> None:
    done, left = cut(disk / "a.log", b"x" * (3 * MIB) + b"\nlast\n", MIB)
    note = b"[1048576 bytes of older lines dropped]\n"
    assert left.startswith(note + b"xxx")
    assert left.endswith(b"x\nlast\n")
    assert done == Cut(MIB, len(note))


def test_a_copy_that_cannot_catch_up_keeps_the_last_lines_and_tells_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim, "_collapse", lambda *_: False)
    path = tmp_path / "a.log"
    path.write_bytes(numbered_lines(20_000))
    fd = os.open(path, os.O_RDWR)
    try:
        drop_head(fd, 1_000_000, 1_500_000)
    finally:
        os.close(fd)
    note, *lines = path.read_bytes().splitlines()
    assert re.fullmatch(rb"\[\d+ bytes dropped: written faster than they could be kept\]", note)
    assert [int(line) for line in lines] == list(range(20_000 - len(lines), 20_000))
    assert len(lines) > 500
