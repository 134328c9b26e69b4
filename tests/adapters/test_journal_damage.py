"""A journal that is damaged is not trusted, wherever the damage is."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from instance_manager.adapters.journal import SqliteJournal
from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.change import Change
from instance_manager.core.process import Body, Identity, Process, State
from instance_manager.core.spec import ProcessSpec

BOOT_ID = "this-boot"
PAGE = 4096
WRITTEN = 300
Sized = Callable[[int, int], int]


def process(number: int) -> Process:
    return Process(
        spec=ProcessSpec(name=f"n{number}", binary="/bin/r", args=("-v",)),
        uuid=f"u{number}",
        state=State.RUNNING,
        body=Body.ALIVE,
        identity=Identity(1000 + number, 5),
    )


def write(journal: SqliteJournal, numbers: range) -> None:
    for number in numbers:
        subject = process(number % 50)
        journal.record(JournalRecord(subject, listed=True), [Change(number, 1.0, subject, None)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with some processes and their history."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path, BOOT_ID)
    journal.open()
    write(journal, range(1, WRITTEN))
    journal.close()
    return path


def test_a_journal_that_is_not_moved_aside_can_be_written(path: Path, sized: Sized) -> None:
    """Damage may lie where nothing is read at the start, and be met by the first change there."""
    whole, randomness = path.read_bytes(), random.Random(29)
    taken = 0
    for _ in range(sized(100, 5_000)):
        damaged = bytearray(whole)
        for _ in range(3):
            # The head of a page is where damage is felt most.
            place = randomness.randrange(len(whole) // PAGE) * PAGE + randomness.randrange(64)
            damaged[place] = randomness.randrange(256)
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(damaged)
        journal = SqliteJournal(path, BOOT_ID)
        journal.open()
        if not journal.last_error:
            taken += 1
            write(journal, range(WRITTEN, 2 * WRITTEN))
            assert journal.last_error == ""
        journal.close()
    assert taken


def test_after_a_journal_was_moved_aside_the_first_process_is_written_at_once(path: Path) -> None:
    path.write_bytes(b"noise" * PAGE)
    journal = SqliteJournal(path, BOOT_ID)
    assert journal.open() == []
    write(journal, range(1, 2))
    assert journal.last_error == ""
    journal.close()
    assert [record.process.uuid for record in SqliteJournal(path, BOOT_ID).open()] == ["u1"]


@pytest.mark.parametrize(
    "nonsense",
    [
        replace(process(1), spec=replace(process(1).spec, name="../../tmp/x")),
        replace(process(1), identity=Identity(-1, 5)),
        replace(process(1), identity=Identity(2**70, 5)),
    ],
    ids=["name", "negative PID", "huge PID"],
)
def test_a_journal_that_tells_of_what_cannot_be_is_moved_aside(path: Path, nonsense: Process) -> None:
    journal = SqliteJournal(path, BOOT_ID)
    journal.open()
    journal.record(JournalRecord(nonsense, listed=True))
    journal.close()
    following = SqliteJournal(path, BOOT_ID)
    assert following.open() == []
    following.close()
    assert path.with_name("journal.db.unusable").exists()
