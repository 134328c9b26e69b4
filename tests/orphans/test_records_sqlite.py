"""Records in a real file, worked on by an agent and by people at the same time."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from instance_manager.orphans.interfaces import CannotReadError
from instance_manager.orphans.model import ObservedInstance, Orphan, Resolution
from instance_manager.orphans.records import AgentInfo, SqliteRecords
from instance_manager.orphans.records.schema import STEPS

FILES = Path(__file__).parent / "orphan_records"


def orphan(name: str = "r1", uuid: str = "u1", created: float = 100.0) -> Orphan:
    return Orphan(
        ObservedInstance(name, uuid, "replica", "running"), "im-1", created, "the instance has no owner"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "orphans.db"


@pytest.fixture
def agent(path: Path) -> Iterator[SqliteRecords]:
    records = SqliteRecords(path, agent=True)
    records.open()
    yield records
    records.close()


@pytest.fixture
def person(agent: SqliteRecords, path: Path) -> Iterator[SqliteRecords]:
    """The same file in the hands of another process, as far as SQLite can tell."""
    del agent
    records = SqliteRecords(path)
    records.open()
    yield records
    records.close()


def filled() -> Orphan:
    return Orphan(
        instance=ObservedInstance("v-e-0", "u-9", "engine", "error", "v2", deleting=True),
        manager="im-2",
        created=1.5,
        reason="why",
        exists=False,
        resolution=Resolution.MANAGER_LEFT,
        ended=2.5,
        outcome="what",
        requested_by="root",
        requested_at=2.25,
        deleted_by="auto",
        attempts=3,
        last_error="so",
    )


async def test_every_field_of_a_record_is_kept(agent: SqliteRecords, person: SqliteRecords) -> None:
    await agent.create(filled())
    assert await person.get(filled().name) == filled()
    assert await person.list() == [filled()]
    assert await person.get("orphan-other") is None


async def test_records_are_listed_in_the_order_in_which_they_were_made(agent: SqliteRecords) -> None:
    for name, created in (("c", 3.0), ("a", 2.0), ("b", 1.0)):
        await agent.create(orphan(name, created=created))
    assert [record.instance.name for record in await agent.list()] == ["b", "a", "c"]


async def test_records_outlive_the_agent(agent: SqliteRecords, path: Path) -> None:
    await agent.create(orphan())
    agent.close()
    again = SqliteRecords(path, agent=True)
    again.open()
    assert await again.list() == [orphan()]
    again.close()


async def test_what_a_person_asks_for_is_not_undone_by_what_the_agent_knew_before(
    agent: SqliteRecords, person: SqliteRecords
) -> None:
    await agent.create(orphan())
    asked = await person.request_delete(orphan().name, "root", 200.0)
    assert asked == replace(orphan(), requested_by="root", requested_at=200.0)
    await person.update(replace(asked, deleted_by="root"))
    await agent.update(replace(orphan(), last_error="busy", attempts=1))
    assert await person.get(orphan().name) == replace(asked, deleted_by="root", last_error="busy", attempts=1)


async def test_what_is_new_about_a_record_does_not_bring_back_one_that_has_ended(
    agent: SqliteRecords, person: SqliteRecords
) -> None:
    await agent.create(orphan())
    await person.update(replace(orphan(), last_error="busy"))
    assert await agent.list() == [replace(orphan(), last_error="busy")]
    gone = orphan().close(Resolution.GONE, 300.0, "the instance is gone")
    await agent.remove(gone)
    await person.update(replace(orphan(), last_error="late"))
    assert await agent.list() == []
    assert await agent.history() == [gone]


async def test_an_instance_that_was_gone_before_its_deletion_was_written_down_was_deleted_all_the_same(
    agent: SqliteRecords, person: SqliteRecords
) -> None:
    await agent.create(orphan())
    asked = await person.request_delete(orphan().name, "root", 200.0)
    assert asked is not None
    await agent.remove(orphan().close(Resolution.GONE, 300.0, "the instance is gone"))
    await person.update(replace(asked, deleted_by="root"))
    (ended,) = await agent.history()
    assert (ended.resolution, ended.outcome, ended.requested_by) == (
        Resolution.DELETED,
        "deleted by root",
        "root",
    )
    assert await agent.list() == []


async def test_a_request_for_a_record_that_has_ended_is_refused(
    agent: SqliteRecords, person: SqliteRecords
) -> None:
    await agent.create(orphan())
    await agent.remove(orphan().close(Resolution.GONE, 300.0, "the instance is gone"))
    assert await person.request_delete(orphan().name, "root", 200.0) is None
    assert await person.list() == []


async def test_an_instance_that_a_person_has_deleted_was_deleted_even_if_the_agent_only_saw_it_go(
    agent: SqliteRecords, person: SqliteRecords
) -> None:
    await agent.create(orphan())
    asked = await person.request_delete(orphan().name, "root", 200.0)
    assert asked is not None
    await person.update(replace(asked, deleted_by="root"))
    await agent.remove(orphan().close(Resolution.GONE, 300.0, "the instance is gone"))
    (ended,) = await person.history()
    assert (ended.resolution, ended.outcome, ended.ended) == (Resolution.DELETED, "deleted by root", 300.0)
    assert (ended.requested_by, ended.requested_at, ended.deleted_by) == ("root", 200.0, "root")


async def test_an_ended_record_is_history_once_with_what_became_of_it(
    agent: SqliteRecords, person: SqliteRecords
) -> None:
    ended = orphan().close(Resolution.DELETED, 300.0, "deleted by root")
    await agent.create(orphan())
    await agent.remove(ended)
    await person.remove(ended)
    assert await person.history() == [ended]
    # The same instance may be found again, and end again.
    await agent.create(orphan(created=400.0))
    again = orphan(created=400.0).close(Resolution.OWNED, 500.0, "the owner is back")
    await agent.remove(again)
    assert await person.history() == [ended, again]


async def test_the_history_is_bounded_and_keeps_the_latest(path: Path) -> None:
    records = SqliteRecords(path, agent=True, memory=3)
    records.open()
    for number in range(10):
        await records.create(orphan(f"r{number}"))
        await records.remove(orphan(f"r{number}").close(Resolution.GONE, 1.0, "gone"))
    assert [record.instance.name for record in await records.history()] == ["r7", "r8", "r9"]
    records.close()


async def test_where_the_agent_looks_is_known_to_people(agent: SqliteRecords, person: SqliteRecords) -> None:
    assert await person.agent_info() is None
    for targets in ({"im-1": "unix:///a", "im-2": "tcp://b:1"}, {"im-3": "tcp://c:1"}):
        agent_info = AgentInfo("/owners.json", targets, 12.5, 77)
        await agent.set_agent_info(agent_info)
        assert await person.agent_info() == agent_info


async def test_there_is_one_agent_at_a_time(agent: SqliteRecords, path: Path) -> None:
    second = SqliteRecords(path, agent=True)
    with pytest.raises(CannotReadError, match="another agent does"):
        second.open()
    agent.close()
    second.open()
    second.close()


async def test_only_an_agent_creates_records(path: Path) -> None:
    with pytest.raises(CannotReadError, match="start the agent with `orphans run`"):
        SqliteRecords(path).open()
    assert leftovers(path.parent.parent) == []


async def test_records_are_for_their_owner_only(agent: SqliteRecords, path: Path) -> None:
    await agent.list()
    assert {found.stat().st_mode & 0o077 for found in (path.parent, *path.parent.iterdir())} == {0}


def begin(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()


def leftovers(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def damaged(path: Path, how: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    match how:
        case "newer":
            connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
        case "senseless":
            connection.execute("UPDATE orphans SET created = 'yesterday'")
        case "renamed":
            connection.execute("UPDATE orphans SET uuid = 'another'")
        case "not UTF-8":
            connection.execute("UPDATE orphans SET reason = CAST(x'ff' AS TEXT)")
        case "table":
            connection.execute("DROP TABLE history")
        case "sources":
            connection.execute("INSERT INTO sources VALUES ('owners', '/x')")
        case "noise":
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            path.write_bytes(os.urandom(8192))
        case "cut":
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            os.truncate(path, path.stat().st_size // 2)
    connection.close()


DAMAGES = ["newer", "senseless", "renamed", "not UTF-8", "table", "sources", "noise", "cut"]


@pytest.mark.parametrize("how", DAMAGES)
async def test_an_agent_moves_a_file_aside_that_it_cannot_use_and_begins_anew(
    agent: SqliteRecords, path: Path, how: str
) -> None:
    await agent.create(orphan())
    agent.close()
    damaged(path, how)
    person = SqliteRecords(path)
    with pytest.raises(CannotReadError, match="cannot use the records"):
        person.open()
    assert sorted(found.name for found in path.parent.glob("*.unusable")) == []

    again = SqliteRecords(path, agent=True)
    again.open()
    assert await again.list() == []
    await again.create(orphan("r2"))
    assert [record.instance.name for record in await again.list()] == ["r2"]
    assert path.with_name("orphans.db.unusable").exists()
    again.close()


@pytest.mark.parametrize("how", ["senseless", "table"])
async def test_an_agent_whose_records_break_under_it_begins_anew(
    agent: SqliteRecords, path: Path, how: str
) -> None:
    await agent.create(orphan())
    damaged(path, how)
    with pytest.raises(CannotReadError):
        await (agent.list() if how == "senseless" else agent.history())
    assert await agent.list() == []


async def test_records_that_somebody_removes_are_begun_anew(agent: SqliteRecords, path: Path) -> None:
    await agent.create(orphan())
    remove(path)
    assert await agent.list() == []
    await agent.create(orphan("r2"))
    person = SqliteRecords(path)
    person.open()
    assert [record.instance.name for record in await person.list()] == ["r2"]
    person.close()


async def test_records_that_somebody_holds_are_an_error_that_passes(
    agent: SqliteRecords, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.create(orphan("r2"))
    agent.close()
    monkeypatch.setattr("instance_manager.orphans.records.sqlite._BUSY_TIMEOUT", 0.05)
    agent = SqliteRecords(path, agent=True)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CannotReadError, match="locked"):
        await agent.create(orphan())
    holder.execute("COMMIT")
    holder.close()
    await agent.create(orphan())
    assert {record.instance.name for record in await agent.list()} == {"r1", "r2"}
    agent.close()


async def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    records = SqliteRecords(tmp_path / "file" / "orphans.db", agent=True)
    with pytest.raises(CannotReadError, match="make the directory writable or give other --records"):
        records.open()


@pytest.mark.parametrize("version", range(1, len(STEPS) + 1))
async def test_records_of_every_version_are_understood(path: Path, version: int) -> None:
    begin(path, (FILES / f"v{version}.db").read_bytes())
    records = SqliteRecords(path, agent=True)
    records.open()
    assert await records.list() == [replace(filled(), resolution=Resolution.OPEN)]
    assert await records.history() == [filled()]
    assert await records.agent_info() == AgentInfo("/owners.json", {"im-1": "tcp://a:1"}, 1.0, 2)
    records.close()


async def test_two_who_begin_records_at_once_both_find_them_whole(path: Path) -> None:
    begin(path, b"")
    both = [SqliteRecords(path), SqliteRecords(path)]
    for records in both:
        records.open()
        assert await records.list() == []
        records.close()


async def test_an_instance_that_is_gone_after_a_request_is_closed_with_it(tmp_path: Path) -> None:
    agent, command = SqliteRecords(tmp_path / "o.db", agent=True), SqliteRecords(tmp_path / "o.db")
    agent.open()
    await agent.create(orphan())
    await command.request_delete(orphan().name, "root", 200.0)
    closed = await agent.remove(orphan().close_as_gone(300.0))
    assert closed.outcome == "the instance is gone; root had asked for its deletion"
    assert await agent.history() == [closed]
    assert await agent.remove(orphan().close_as_gone(400.0)) == closed
    for records in (agent, command):
        records.close()


def test_whether_an_agent_runs_is_told_by_its_lock(tmp_path: Path) -> None:
    agent, command = SqliteRecords(tmp_path / "o.db", agent=True), SqliteRecords(tmp_path / "o.db")
    agent.open()
    assert command.has_agent()
    agent.close()
    assert not command.has_agent()
    command.close()
