"""Transactions in SQLite, and migration to the present schema: whole, or not at all."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.platform.sqlite import (
    NewerSchemaError,
    SqliteFile,
    is_damage,
    is_transient,
    transaction,
    upgrade,
)

STEPS = (
    "CREATE TABLE a (x); INSERT INTO a VALUES (1);",
    "CREATE TABLE b (x); INSERT INTO b SELECT x + 1 FROM a;",
)
BROKEN = "CREATE TABLE c (x); INSERT INTO nowhere VALUES (1);"

Connect = Callable[[], sqlite3.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connections: list[sqlite3.Connection] = []

    def new() -> sqlite3.Connection:
        connections.append(sqlite3.connect(tmp_path / "file.db", isolation_level=None, timeout=0))
        return connections[-1]

    yield new
    for connection in connections:
        connection.close()


def state(connection: sqlite3.Connection) -> tuple[int, list[str]]:
    """Return the version of a file and its tables."""
    tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name")
    return connection.execute("PRAGMA user_version").fetchone()[0], [name for (name,) in tables]


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_a_file_of_any_version_becomes_one_of_the_present(connect: Connect, begun: int) -> None:
    upgrade(connect(), STEPS[:begun])
    upgrade(connect(), STEPS)
    assert state(connect()) == (2, ["a", "b"])
    assert connect().execute("SELECT x FROM b").fetchall() == [(2,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(connect: Connect) -> None:
    upgrade(connect(), STEPS[:1])
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        upgrade(connect(), (*STEPS, BROKEN))
    assert state(connect()) == (1, ["a"])


def test_what_another_has_migrated_in_the_meantime_is_not_migrated_again(connect: Connect) -> None:
    late, early = connect(), connect()
    late.set_trace_callback(lambda statement: upgrade(early, STEPS) if "BEGIN" in statement else None)
    upgrade(late, STEPS)
    late.set_trace_callback(None)
    assert state(late) == (2, ["a", "b"])
    assert late.execute("SELECT x FROM b").fetchall() == [(2,)]


def test_a_file_of_a_later_version_is_refused_although_it_is_locked(connect: Connect) -> None:
    upgrade(connect(), STEPS)
    with transaction(connect()), pytest.raises(NewerSchemaError, match="version 2, this program knows 1"):
        upgrade(connect(), STEPS[:1])
    assert state(connect()) == (2, ["a", "b"])


def fail_halfway(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        connection.execute("DELETE FROM a")
        raise KeyError


def test_an_error_takes_a_transaction_back_and_the_file_is_free_again(connect: Connect) -> None:
    upgrade(connect(), STEPS)
    first, second = connect(), connect()
    with pytest.raises(KeyError):
        fail_halfway(first)
    with transaction(second):
        second.execute("INSERT INTO a VALUES (3)")
    assert first.execute("SELECT x FROM a").fetchall() == [(1,), (3,)]


def test_only_one_at_a_time_may_write_and_it_may_from_the_start(connect: Connect) -> None:
    with transaction(connect()), pytest.raises(sqlite3.OperationalError, match="locked"):
        upgrade(connect(), STEPS)
    assert state(connect()) == (0, [])


def test_a_full_disk_is_no_damage_and_passes(connect: Connect) -> None:
    upgrade(connect(), STEPS)
    connection = connect()
    connection.execute("PRAGMA max_page_count = 1")  # as many as it has
    with pytest.raises(sqlite3.OperationalError, match="full") as caught:
        connection.execute("INSERT INTO a VALUES (?)", ("x" * 100_000,))
    assert not is_damage(caught.value)
    assert is_transient(caught.value)


def test_a_file_that_somebody_else_writes_is_no_damage_and_passes(connect: Connect) -> None:
    upgrade(connect(), STEPS)
    with transaction(connect()), pytest.raises(sqlite3.OperationalError, match="locked") as caught:
        connect().execute("INSERT INTO a VALUES (2)")
    assert not is_damage(caught.value)
    assert is_transient(caught.value)


def test_a_file_is_moved_aside_with_what_was_not_written_into_it_yet(tmp_path: Path) -> None:
    alive, file = SqliteFile(tmp_path / "alive.db", STEPS), SqliteFile(tmp_path / "file.db", STEPS)
    alive.open().execute("INSERT INTO a VALUES (3)")
    for suffix in ("", "-wal"):  # as a process that was killed leaves it
        Path(f"{file.path}{suffix}").write_bytes(Path(f"{alive.path}{suffix}").read_bytes())
    alive.close()
    aside = file.move_aside()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive.db", aside.name, f"{aside.name}-wal"]
    connection = sqlite3.connect(aside)
    assert connection.execute("SELECT x FROM a").fetchall() == [(1,), (3,)]
    connection.close()


@pytest.mark.parametrize("place", [18, 19])
def test_a_file_of_an_unknown_format_is_damaged(tmp_path: Path, place: int) -> None:
    """SQLite says of some that they are read-only, which is no reason to give a file up."""
    file = SqliteFile(tmp_path / "file.db", STEPS)
    file.open()
    file.close()
    content = bytearray(file.path.read_bytes())
    content[place] = 200
    file.path.write_bytes(content)
    with pytest.raises(ValueError, match="unknown format") as caught:
        file.open()
    assert is_damage(caught.value)
    assert not file.is_open
