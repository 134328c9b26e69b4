"""Reading logs: all, the last lines, and what is written from now on, while the head is cut off."""

import asyncio
import itertools
import os
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.adapters.logs import LogFiles
from instance_manager.adapters.logs.lines import LONGEST, LineSplitter
from instance_manager.core.errors import NotFoundError
from tests.support.patience import patience
from tests.support.processes import LagMeter, descriptors, open_logs

MIB = 1 << 20


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[LogFiles]:
    async with open_logs(tmp_path, max_size=MIB) as opened:
        yield opened


async def read(logs: LogFiles, name: str, tail: int | None = None) -> list[str]:
    async with asyncio.timeout(patience(20)), aclosing(logs.read(name, follow=False, tail=tail)) as lines:
        return [line async for line in lines]


class Follower:
    """Reads a log as it is written."""

    def __init__(self, logs: LogFiles, name: str, tail: int | None = None) -> None:
        self.lines: list[str] = []
        self._arrived = asyncio.Condition()
        self._task = asyncio.create_task(self._read(logs, name, tail))

    async def _read(self, logs: LogFiles, name: str, tail: int | None) -> None:
        async with aclosing(logs.read(name, follow=True, tail=tail)) as lines:
            async for line in lines:
                async with self._arrived:
                    self.lines.append(line)
                    self._arrived.notify_all()

    async def seen(self, line: str) -> None:
        """Wait for a line."""
        async with asyncio.timeout(patience(20)), self._arrived:
            await self._arrived.wait_for(lambda: line in self.lines)

    async def ended(self) -> list[str]:
        """Wait until the stream has ended by itself; return all that came."""
        async with asyncio.timeout(patience(20)):
            await self._task
        return self.lines

    async def cancelled(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


# --- lines ---


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))), st.data())
def test_lines_are_the_same_however_they_are_chopped_into_chunks(
    written: list[str], data: st.DataObject
) -> None:
    content = "".join(f"{line}\n" for line in written).encode()
    splitter = LineSplitter()
    read: list[str] = []
    while content:
        size = data.draw(st.integers(1, len(content)))
        read += splitter.feed(content[:size])
        content = content[size:]
    assert read + splitter.end() == written


def test_the_last_line_needs_no_end() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"a\nb")) == ["a"]
    assert splitter.unfinished
    assert splitter.end() == ["b"]
    assert splitter.end() == []


def test_a_carriage_return_before_the_end_is_no_part_of_a_line_and_elsewhere_it_is() -> None:
    assert list(LineSplitter().feed(b"a\r\nb\rc\n\r\n")) == ["a", "b\rc", ""]


def test_what_is_not_utf_8_becomes_replacement_characters() -> None:
    assert list(LineSplitter().feed(b"caf\xe9 \xff\xfe\n\xc3\xa9\n")) == ["caf\ufffd \ufffd\ufffd", "é"]


def test_a_line_that_is_too_long_comes_in_pieces_that_cut_no_character() -> None:
    line = "é" * LONGEST  # each takes two bytes
    content = b"x" + line.encode() + b"\nshort\n"
    splitter = LineSplitter()
    pieces = [
        piece for at in range(0, len(content), 65536) for piece in splitter.feed(content[at : at + 65536])
    ]
    assert pieces.pop() == "short"
    assert "".join(pieces) == "x" + line
    assert [len(piece.encode()) for piece in pieces] == [LONGEST - 1, LONGEST, 2]


@pytest.mark.parametrize("length", [LONGEST, 2 * LONGEST])
@pytest.mark.parametrize("chunk", [4 * LONGEST, 65536])
def test_a_line_of_exactly_the_longest_pieces_has_no_empty_one_behind_it(length: int, chunk: int) -> None:
    content = b"y" * length + b"\nz\n"
    splitter = LineSplitter()
    pieces = [
        piece for at in range(0, len(content), chunk) for piece in splitter.feed(content[at : at + chunk])
    ]
    assert pieces == ["y" * LONGEST] * (length // LONGEST) + ["z"]


# --- files ---


async def test_a_log_that_nobody_writes_is_read_from_begin_to_end(logs: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "old.log").write_text("one\ntwo\n\nlast without end")
    assert await read(logs, "old") == ["one", "two", "", "last without end"]


async def test_an_unknown_log_is_not_found(logs: LogFiles) -> None:
    with pytest.raises(NotFoundError, match="cannot read the log of nobody: No such file or directory"):
        await read(logs, "nobody")


@pytest.mark.parametrize("kind", ["directory", "symbolic link", "named pipe"])
async def test_what_is_no_regular_file_is_not_read(logs: LogFiles, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.log"
    match kind:
        case "directory":
            path.mkdir()
        case "symbolic link":
            path.symlink_to("/etc/passwd")
        case _:
            os.mkfifo(path)
    with pytest.raises(NotFoundError, match="cannot read the log of odd"):
        await read(logs, "odd")


@pytest.mark.parametrize("size", [10, 1000, 200_000])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("tail", [0, 1, 2, 9, 10, 11, 1_000_000])
async def test_a_tail_is_the_last_lines(
    logs: LogFiles, tmp_path: Path, size: int, end: str, tail: int
) -> None:
    written = [f"{number} {'x' * (size // 10)}" for number in range(10)]
    (tmp_path / "a.log").write_text("\n".join(written) + end)
    assert await read(logs, "a", tail=tail) == (written[-tail:] if tail else [])


async def test_a_tail_of_empty_lines_counts_them(logs: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\n" * 200_000)
    assert await read(logs, "a", tail=150_000) == [""] * 150_000
    (tmp_path / "a.log").write_text("")
    assert await read(logs, "a", tail=3) == []


async def test_a_line_of_a_hundred_thousand_bytes_is_whole(logs: LogFiles, tmp_path: Path) -> None:
    long = "".join(f"{number:08d}" for number in range(12_500))
    (tmp_path / "a.log").write_text(f"before\n{long}\nafter\n")
    assert await read(logs, "a") == ["before", long, "after"]


async def test_a_huge_tail_of_a_long_log_does_not_stall_the_event_loop(
    logs: LogFiles, tmp_path: Path, lag: LagMeter
) -> None:
    line = b"%099d\n" % 7
    (tmp_path / "a.log").write_bytes(line * 500_000)
    with lag.measuring():
        assert len(await read(logs, "a", tail=499_999)) == 499_999
    assert lag.longest < patience(0.1)


async def test_a_follower_gets_what_is_written_later_and_ends_when_the_last_process_has(
    logs: LogFiles,
) -> None:
    with logs.writer("a") as first, logs.writer("a") as second:
        os.write(first, b"begun\n")
        follower = Follower(logs, "a")
        await follower.seen("begun")
        os.write(first, b"more\nunfin")
        await follower.seen("more")
        os.write(second, b"ished\n")
        await follower.seen("unfinished")
        logs.release("a")
        os.write(second, b"still here\nthe last word")
        await follower.seen("still here")
        logs.release("a")
    assert await follower.ended() == ["begun", "more", "unfinished", "still here", "the last word"]


async def test_a_follower_with_a_tail_begins_there(logs: LogFiles) -> None:
    with logs.writer("a") as fd:
        os.write(fd, b"1\n2\n3\n")
        follower = Follower(logs, "a", tail=1)
        await follower.seen("3")
        os.write(fd, b"4\n")
        await follower.seen("4")
        logs.release("a")
    assert await follower.ended() == ["3", "4"]


async def test_following_a_log_that_nobody_writes_ends_at_its_end(logs: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("all\n")
    assert await Follower(logs, "a").ended() == ["all"]


async def test_a_log_that_grows_while_it_is_read_comes_to_an_end_all_the_same(logs: LogFiles) -> None:
    with logs.writer("a") as fd:
        os.write(fd, b"begun\nunfin")
        got = []
        async with asyncio.timeout(patience(20)), aclosing(logs.read("a", follow=False, tail=None)) as lines:
            async for line in lines:
                got.append(line)
                os.write(fd, b"ished\n" + b"x" * 65536 + b"\n")  # faster than it is read
        assert got[:2] == ["begun", "unfinished"]
        assert len(got) < 10
        logs.release("a")


async def test_two_writers_leave_whole_lines(logs: LogFiles) -> None:
    with logs.writer("a") as first, logs.writer("a") as second:
        for number in range(1000):
            os.write(first, b"one %d\n" % number)
            os.write(second, b"two %d\n" % number)
        logs.release("a")
        logs.release("a")
    got = await read(logs, "a")
    assert [line for line in got if line.startswith("one")] == [f"one {n}" for n in range(1000)]
    assert [line for line in got if line.startswith("two")] == [f"two {n}" for n in range(1000)]


async def test_a_follower_gets_each_line_once_over_many_cuts(logs: LogFiles, tmp_path: Path) -> None:
    with logs.writer("a") as fd:
        follower = Follower(logs, "a")
        for block in range(100):
            os.write(fd, b"".join(b"%099d\n" % (block * 1000 + number) for number in range(1000)))
            await follower.seen(f"{block * 1000 + 999:099d}")
            assert (tmp_path / "a.log").stat().st_size <= MIB
        logs.release("a")
    assert [int(line) for line in await follower.ended()] == list(range(100_000))


async def test_a_reader_that_is_overtaken_by_a_cut_goes_on_with_whole_lines(logs: LogFiles) -> None:
    with logs.writer("a") as fd:
        os.write(fd, b"".join(b"%099d\n" % number for number in range(2000)))
        async with aclosing(logs.read("a", follow=True, tail=None)) as lines:
            got = [await anext(lines) for _ in range(10)]
            each = logs._logs["a"]
            for block in range(2, 30):
                version = each.version
                os.write(fd, b"".join(b"%099d\n" % (block * 1000 + number) for number in range(1000)))
                async with asyncio.timeout(patience(20)):
                    await each.changed(version)
            logs.release("a")
            got += [line async for line in lines]
    numbers = [
        int(line) for line in got if not re.fullmatch(r"\[\d+ bytes of older lines dropped\] *| *", line)
    ]
    jumps = [after - before for before, after in itertools.pairwise(numbers) if after != before + 1]
    assert len(jumps) >= 1
    assert all(jump > 1 for jump in jumps)
    assert numbers[-5000:] == list(range(25_000, 30_000))


async def test_a_log_that_is_truncated_by_hand_is_followed_on(logs: LogFiles, tmp_path: Path) -> None:
    with logs.writer("a") as fd:
        follower = Follower(logs, "a")
        os.write(fd, b"a long line before\n")
        await follower.seen("a long line before")
        os.truncate(tmp_path / "a.log", 0)
        os.write(fd, b"after\n")
        await follower.seen("after")
        logs.release("a")
    assert await follower.ended() == ["a long line before", "after"]


async def test_a_reader_that_gives_up_leaves_nothing_behind(logs: LogFiles) -> None:
    with logs.writer("a") as fd:
        before = descriptors()
        for _ in range(50):
            follower = Follower(logs, "a")
            os.write(fd, b"line\n")
            await follower.seen("line")
            await follower.cancelled()
        assert descriptors().items() <= before.items()
        assert logs._logs["a"].readers == set()
        assert not logs._logs["a"]._next_change._waiters
        logs.release("a")
