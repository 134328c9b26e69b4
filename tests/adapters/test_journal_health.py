"""The journal looks after its file: what goes wrong with it meanwhile is put right though nothing changes."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.journal import SqliteJournal, StateDir, StateDirError, journal
from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.change import Change
from instance_manager.core.process import Body, Process, State
from instance_manager.core.spec import ProcessSpec
from instance_manager.platform.background import Background
from tests.support.disks import tmpfs
from tests.support.patience import patience

PROCESS = Process(
    spec=ProcessSpec(name="a", binary="/bin/true"), uuid="u", state=State.RUNNING, body=Body.ALIVE
)
RECORD = JournalRecord(PROCESS, listed=True)
WRITTEN = [Change(number, 1.0, PROCESS, None) for number in range(1, 400)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


class CheckedJournal:
    """A journal with a periodic check, one process and some changes, and its reported health."""

    def __init__(self, path: Path) -> None:
        self.journal = SqliteJournal(path, "boot", retry_interval=0.01)
        self.records = self.journal.open()
        self._health: list[bool] = []
        self.recovered = asyncio.Event()
        self.journal.follow(lambda: [RECORD], lambda: WRITTEN, self._on_health)
        for change in WRITTEN:
            self.journal.record(RECORD, [change])

    def _on_health(self, well: bool) -> None:
        self._health.append(well)
        if well:
            self.recovered.set()

    async def well_again(self) -> None:
        async with asyncio.timeout(patience(20)):
            await self.recovered.wait()
        assert self._health == [False, True]
        assert self.journal.last_error == ""


@pytest.fixture
async def checked(path: Path) -> AsyncIterator[CheckedJournal]:
    checked = CheckedJournal(path)
    checked.journal.start_health_check(Background())
    yield checked
    checked.journal.close()


@contextlib.contextmanager
def blocked(path: Path) -> Iterator[None]:
    """Let nobody else write."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        yield


async def read_by_the_next(path: Path) -> tuple[list[JournalRecord], list[int]]:
    journal = SqliteJournal(path, "boot")
    try:
        return journal.open(), [change.revision async for change in journal.changes()]
    finally:
        journal.close()


async def test_what_could_not_be_written_is_written_though_nothing_changes(
    checked: CheckedJournal, path: Path
) -> None:
    with blocked(path):
        checked.journal.forget("u", [])
        assert checked.journal.last_error
    await checked.well_again()
    assert (await read_by_the_next(path))[0] == [RECORD]


def remove(path: Path) -> None:
    for file in path.parent.glob("journal.db*"):
        file.unlink()


def replace(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(b"noise" * 1000)
    beside.replace(path)


def put_back(path: Path) -> None:
    """Replace the journal by one of another time."""
    beside = path.with_name("beside")
    other = SqliteJournal(beside, "boot")
    other.open()
    other.record(RECORD, [Change(5, 1.0, PROCESS, None)])
    other.close()
    remove(path)
    beside.replace(path)


@pytest.mark.parametrize("harm", [remove, replace, put_back])
async def test_a_file_that_was_removed_or_replaced_is_made_again(
    checked: CheckedJournal, path: Path, harm: Callable[[Path], None]
) -> None:
    sequence = checked.journal.epoch, checked.journal.revision
    harm(path)
    await checked.well_again()
    assert (checked.journal.epoch, checked.journal.revision) == sequence
    assert await read_by_the_next(path) == ([RECORD], [change.revision for change in WRITTEN])


async def test_a_file_that_was_damaged_is_moved_aside_and_made_again(
    checked: CheckedJournal, path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE events")
    checked.journal.record(RECORD, WRITTEN[-1:])
    await checked.well_again()
    assert await read_by_the_next(path) == ([RECORD], [change.revision for change in WRITTEN])
    assert path.with_name("journal.db.unusable").exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a file system of its own."""
    with tmpfs(tmp_path / "state", "size=2m") as folder:
        yield folder


async def test_a_state_directory_that_has_become_read_only_serves_until_it_can_be_written(
    mounted: Path,
) -> None:
    dies = (
        "import os, pathlib, sys; from tests.adapters.test_journal_health import CheckedJournal\n"
        "CheckedJournal(pathlib.Path(sys.argv[1])); os._exit(0)"
    )
    state = StateDir(mounted)
    state.open()
    subprocess.run([sys.executable, "-c", dies, state.journal], check=True)  # noqa: ASYNC221
    state.close()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)  # noqa: ASYNC221
    state.open()
    with pytest.raises(StateDirError, match="another daemon"):
        StateDir(mounted).open(patience=0)
    following = CheckedJournal(state.journal)
    assert following.records == [RECORD]
    assert "cannot write" in following.journal.last_error
    following.journal.start_health_check(Background())
    subprocess.run(["mount", "-o", "remount,rw", str(mounted)], check=True)  # noqa: ASYNC221
    async with asyncio.timeout(patience(20)):
        await following.recovered.wait()
    following.journal.close()
    state.close()


async def test_what_can_be_read_but_not_written_at_the_start_is_believed_and_not_moved_aside(
    path: Path,
) -> None:
    before = CheckedJournal(path).journal
    before.close()
    following = SqliteJournal(path, "boot", retry_interval=0.01)
    with blocked(path):
        assert following.open() == [RECORD]
        assert "cannot write" in following.last_error
    assert [file.name for file in path.parent.glob("*.unusable*")] == []
    following.close()


async def test_an_error_in_the_check_that_nobody_foresaw_does_not_end_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = CheckedJournal(path)
    background = Background(first_delay=0.01)
    errors = [LookupError("odd")]
    catch_up = checked.journal._catch_up

    def failing() -> bool:
        if errors:
            raise errors.pop()
        return catch_up()

    monkeypatch.setattr(checked.journal, "_catch_up", failing)
    checked.journal.start_health_check(background)
    os.unlink(path)  # noqa: PTH108 - pathlib would be another thing to await
    await checked.well_again()
    assert background.works[journal.WORK].failures == 1
    checked.journal.close()
