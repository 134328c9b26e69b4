"""The journal: what is written is read again, and nothing that happens to the file stops the daemon."""

import contextlib
import errno
import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instance_manager.adapters.journal import SqliteJournal, StateDir, StateDirError, codec
from instance_manager.adapters.journal.schema import STEPS
from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.adoption import plan_adoption
from instance_manager.core.change import Change
from instance_manager.core.lifecycle import step
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec
from instance_manager.platform.linux import lock_file
from tests.core.test_lifecycle_table import REACHABLE

MADE_BY_EARLIER_VERSIONS = Path(__file__).parent / "journals"

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
processes = st.builds(
    Process,
    spec=st.builds(
        ProcessSpec,
        name=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True),
        binary=words,
        args=st.lists(words, max_size=3).map(tuple),
        port_count=st.integers(0, 10),
        port_args=st.lists(words, max_size=2).map(tuple),
        instance_type=st.sampled_from(["", "engine", "replica"]),
        volume_name=words,
    ),
    uuid=st.uuids().map(str),
    ports=st.none() | st.builds(PortRange, st.integers(1, 100), st.integers(100, 200)),
    state=st.sampled_from(State),
    failure=words,
    stop_error=words,
    conditions=st.dictionaries(words, st.booleans(), max_size=2),
    body=st.sampled_from(Body),
    identity=st.none() | st.builds(Identity, st.integers(1, 99999), st.integers(0, 10**9)),
    exit=st.none() | st.builds(ExitStatus, st.integers(0, 255), words, st.booleans()),
    stop_signal=st.sampled_from(["SIGINT", "SIGHUP"]),
    killed=st.booleans(),
    deletion_requested=st.booleans(),
)


possible = processes.filter(lambda process: process.body in codec._BODIES[process.state])


def process(name: str) -> Process:
    return Process(spec=ProcessSpec(name=name, binary="/bin/true"), uuid=f"uuid-of-{name}")


def change(revision: int, name: str = "a", *, deleted: bool = False) -> Change:
    return Change(revision, 1000.0 + revision, process(name), State.STOPPED if deleted else None, deleted)


async def past(journal: SqliteJournal) -> list[Change]:
    return [each async for each in journal.changes()]


def opened(path: Path, boot: str = "boot-1") -> tuple[SqliteJournal, list[JournalRecord], int]:
    journal = SqliteJournal(path, boot, retry_interval=0)
    OPENED.append(journal)
    records = journal.open()
    return journal, records, journal.revision


OPENED: list[SqliteJournal] = []


@pytest.fixture(autouse=True)
def close_journals() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@given(possible)
@settings(max_examples=200)
def test_a_process_is_read_as_it_was_written(written: Process) -> None:
    assert codec.decode(codec.encode(written)) == written


def test_what_is_taken_for_damage_never_happens_to_a_process() -> None:
    assert {(state, body) for state, bodies in codec._BODIES.items() for body in bodies} == REACHABLE


@given(processes, st.none() | st.builds(Identity, st.integers(1, 99999), st.integers(0, 10**9)))
def test_from_every_process_that_is_read_a_daemon_can_go_on(written: Process, found: Identity | None) -> None:
    try:
        read = codec.decode(codec.encode(written))
    except ValueError:
        return
    _, events = plan_adoption(read, found, None)
    for event in events:
        read, _ = step(read, event)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_text_that_tells_of_no_process_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.decode(text)


def test_the_next_daemon_reads_what_was_recorded_and_not_what_was_forgotten(path: Path) -> None:
    journal, records, revision = opened(path)
    assert (records, revision) == ([], 0)
    kept = JournalRecord(process("kept"), listed=True, replaces="")
    shadow = JournalRecord(process("shadow"), listed=False, replaces="uuid-of-kept")
    for record in (kept, shadow, JournalRecord(process("gone"), listed=True)):
        journal.record(record, [change(16, record.process.name)])
    journal.forget("uuid-of-gone", [change(17, "gone", deleted=True)])
    # No close: a daemon that is killed does not close either.
    _, records, revision = opened(path)
    assert sorted(records, key=lambda record: record.process.name) == [kept, shadow]
    assert revision == 17


def test_a_journal_of_another_boot_tells_of_no_process_but_the_revisions_go_on(path: Path) -> None:
    journal, *_ = opened(path)
    journal.record(JournalRecord(process("a"), listed=True), [change(5)])
    _, records, revision = opened(path, "boot-2")
    assert (records, revision) == ([], 5)
    _, records, _ = opened(path, "boot-2")
    assert records == []


async def test_the_next_daemon_remembers_what_was_told(path: Path) -> None:
    journal, *_ = opened(path)
    written = [change(number) for number in range(1, 500)]
    for each in written:
        journal.record(JournalRecord(each.process, listed=True), [each])
    written.append(replace(change(500, deleted=True), successor="uuid-of-another"))
    journal.forget("uuid-of-a", written[-1:])
    again, records, revision = opened(path)
    assert (records, revision, again.epoch) == ([], 500, journal.epoch)
    assert await past(again) == written


async def test_the_past_ends_where_this_daemon_began(path: Path) -> None:
    journal, *_ = opened(path)
    journal.record(JournalRecord(process("a"), listed=True), [change(1)])
    again, *_ = opened(path)
    again.record(JournalRecord(process("a"), listed=True), [change(2)])
    assert await past(again) == [change(1)]


async def test_only_so_many_changes_are_remembered(path: Path) -> None:
    journal = SqliteJournal(path, "boot", memory=300)
    OPENED.append(journal)
    journal.open()
    for number in range(1, 2001):
        journal.record(JournalRecord(process("a"), listed=True), [change(number)])
    again, *_ = opened(path, "boot")
    remembered = await past(again)
    assert remembered[-1].revision == 2000
    assert 300 <= len(remembered) < 600


async def test_after_a_reboot_another_epoch_begins_and_what_was_told_is_forgotten(path: Path) -> None:
    journal, *_ = opened(path)
    journal.record(JournalRecord(process("a"), listed=True), [change(5)])
    again, *_ = opened(path, "boot-2")
    assert again.epoch != journal.epoch
    assert await past(again) == []
    assert opened(path, "boot-2")[0].epoch == again.epoch


async def test_a_change_that_cannot_be_read_ends_the_past_and_is_counted(path: Path) -> None:
    journal, *_ = opened(path)
    journal.record(JournalRecord(process("a"), listed=True), [change(1)])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE events SET process = 'no json'")
    again, *_ = opened(path)
    assert await past(again) == []
    assert again.failures == 1


def test_a_journal_cut_off_at_any_byte_is_read_or_begun_anew(tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    journal, *_ = opened(whole)
    for number in range(5):
        journal.record(JournalRecord(process(f"p{number}"), listed=True), [change(number)])
    journal._file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    content = whole.read_bytes()
    for length in range(0, len(content), 97):
        path = tmp_path / f"cut-{length}.db"
        path.write_bytes(content[:length])
        survives(path)


@pytest.mark.parametrize("seed", range(30))
def test_a_journal_full_of_noise_is_begun_anew(path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    noise = randomness.randbytes(randomness.randint(1, 20_000))
    path.write_bytes(noise if seed % 2 else b"SQLite format 3\0" + noise)
    survives(path)
    assert path.with_name("journal.db.unusable").read_bytes()


def survives(path: Path) -> None:
    """Whatever the file holds, the journal opens, writes, and is read by the next daemon."""
    journal, *_ = opened(path)
    journal.record(JournalRecord(process("after"), listed=True), [change(1)])
    assert journal.last_error == "" or journal.failures
    journal.close()
    again, records, _ = opened(path)
    assert "after" in {record.process.name for record in records}
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE processes SET process = 'no json'",
        "UPDATE processes SET process = '{}'",
        "UPDATE processes SET process = json_set(process, '$.state', 'dancing')",
        "DROP TABLE processes",
        "DROP TABLE events",
        "PRAGMA user_version = 999",
        "UPDATE meta SET value = 'x' WHERE key = 'revision'",
    ],
)
def test_a_journal_that_makes_no_sense_is_begun_anew_and_kept_for_a_look(path: Path, damage: str) -> None:
    journal, *_ = opened(path)
    journal.record(JournalRecord(process("a"), listed=True), [change(1)])
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    journal, records, _ = opened(path)
    assert records == []
    assert journal.failures == 1
    assert path.with_name("journal.db.unusable").exists()
    survives(path)


async def test_after_a_failure_everything_is_written_as_soon_as_writing_works_again(path: Path) -> None:
    journal, *_ = opened(path)
    truth = {name: JournalRecord(process(name), listed=True) for name in ("a", "b")}
    health: list[bool] = []
    changes: list[Change] = []

    def changed(revision: int, name: str = "a") -> list[Change]:
        changes.append(change(revision, name))
        return changes[-1:]

    journal.follow(truth.values, lambda: changes, health.append)
    journal.record(truth["a"], changed(7))
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    journal.record(truth["b"], changed(8, "b"))
    del truth["a"]
    journal.forget("uuid-of-a", changed(9))
    assert journal.failures >= 1
    assert "cannot write" in journal.last_error
    blocker.execute("ROLLBACK")
    blocker.close()
    assert health == [False]
    journal.record(truth["b"])
    assert journal.last_error == ""
    assert health == [False, True]
    again, records, revision = opened(path)
    assert [record.process.name for record in records] == ["b"]
    assert revision == 9
    assert await past(again) == changes


def test_a_journal_that_cannot_be_created_stops_nobody(tmp_path: Path) -> None:
    journal, records, _ = opened(tmp_path / "no" / "such" / "directory" / "journal.db")
    assert records == []
    journal.record(JournalRecord(process("a"), listed=True), [change(1)])
    journal.forget("uuid-of-a", [change(2)])
    assert journal.last_error


@pytest.mark.parametrize("version", range(1, len(STEPS) + 1))
async def test_a_journal_made_by_each_version_is_read(tmp_path: Path, version: int) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes((MADE_BY_EARLIER_VERSIONS / f"v{version}.db").read_bytes())
    journal, records, revision = opened(path, "the boot of the sample")
    assert {record.process.name: record.process.state for record in records} == {
        "pvc-1-e-0": State.RUNNING,
        "pvc-1-r-1": State.STOPPING,
    }
    assert revision == 42
    changes = await past(journal)
    assert [each.revision for each in changes] == ([] if version == 1 else [41, 42])
    assert [each.successor for each in changes if each.successor] == ["the-other"] * (version >= 3)


def test_one_state_directory_serves_one_daemon(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path / "state"), StateDir(tmp_path / "state")
    first.open()
    with pytest.raises(StateDirError, match="another daemon"):
        second.open(patience=0)
    first.close()
    second.open()
    second.close()


@pytest.mark.parametrize("again", [False, True], ids=["removed", "made again"])
def test_a_lock_that_was_removed_keeps_other_daemons_out(tmp_path: Path, again: bool) -> None:
    first, second = StateDir(tmp_path / "state"), StateDir(tmp_path / "state")
    first.open()
    (tmp_path / "state" / "lock").unlink()
    if again:
        (tmp_path / "state" / "lock").touch()
    with pytest.raises(StateDirError, match="another daemon"):
        second.open(patience=0)
    assert second.inspect().locked
    assert second.holder() == os.getpid()
    first.close()
    second.open()
    second.close()


def test_the_lock_of_a_daemon_that_locks_only_the_file_is_respected(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.path.mkdir()
    fd = lock_file(state.path / "lock")
    for _ in range(2):
        with pytest.raises(StateDirError, match="another daemon"):
            state.open(patience=0)
    os.close(fd)
    state.open(patience=0)
    state.close()


def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.open()
    state.close()
    # What a child of a daemon that was killed does until its execve has closed the descriptor.
    holder = subprocess.Popen(
        ["flock", tmp_path / "state" / "lock", "sh", "-c", "echo; sleep 0.3"], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        state.open(patience=20)
    state.close()


def test_a_state_directory_that_cannot_be_made_is_a_clear_error() -> None:
    with pytest.raises(StateDirError, match="/proc/no-such-place"):
        StateDir(Path("/proc/no-such-place")).open()


def test_a_read_only_file_system_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def read_only(path: Any, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StateDirError, match="Read-only file system"):
        StateDir(tmp_path / "state").open()


def test_two_state_directories_mark_their_processes_differently(tmp_path: Path) -> None:
    marks: Callable[[str], str] = lambda name: StateDir(tmp_path / name).owner  # noqa: E731
    assert marks("a") == marks("a")
    assert marks("a") != marks("b")


def test_while_writing_fails_everything_is_written_again_only_now_and_then(path: Path) -> None:
    journal = SqliteJournal(path, "boot", retry_interval=3600)
    OPENED.append(journal)
    journal.open()
    asked = 0

    def everything() -> list[JournalRecord]:
        nonlocal asked
        asked += 1
        return []

    journal.follow(everything, list, lambda _: None)
    journal._file.connection.execute("DROP TABLE processes")
    for _ in range(100):
        journal.record(JournalRecord(process("a"), listed=True), [change(1)])
    assert journal.failures == 1
    assert asked == 0


def test_a_journal_that_cannot_be_migrated_because_the_disk_is_full_is_not_moved_aside(path: Path) -> None:
    path.write_bytes((MADE_BY_EARLIER_VERSIONS / "v1.db").read_bytes())
    journal = SqliteJournal(path, "the boot of the sample")
    OPENED.append(journal)
    journal._file._pragmas += ("max_page_count = 1",)  # as many as it has
    assert journal.open() == []
    assert "full" in journal.last_error
    journal.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db"]
    assert len(opened(path, "the boot of the sample")[1]) == 2


def test_a_state_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.open()
    state.close()
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_in_another_mount_namespace_the_same_path_marks_processes_differently(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    tell = "import sys, pathlib; from instance_manager.adapters.journal import StateDir; "
    tell += "print(StateDir(pathlib.Path(sys.argv[1])).owner)"
    command = [sys.executable, "-c", tell, str(state.path)]
    here = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert here == state.owner
    there = subprocess.run(["unshare", "--mount", *command], capture_output=True, text=True, check=False)
    if there.returncode != 0:
        pytest.skip(f"needs the right to make a mount namespace: {there.stderr.strip()}")
    assert there.stdout.strip() not in {"", state.owner}
