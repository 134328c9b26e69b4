"""Writing and reading records. The agent and the commands use them at the same time, in separate processes.

Lost records are found again, so a file that cannot be used never stops the agent: it is moved aside.
Deletions that people had requested are lost with it, so this is logged as an error.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import structlog

from instance_manager.orphans.interfaces import CannotReadError
from instance_manager.orphans.model import Orphan, Resolution
from instance_manager.orphans.records import codec
from instance_manager.orphans.records.schema import STEPS
from instance_manager.platform.linux import is_locked, lock_file
from instance_manager.platform.sqlite import FAILURES, SqliteFile, is_damage

log = structlog.get_logger(__name__)

_ALL = ", ".join(codec.COLUMNS)
_PLACEHOLDERS = ", ".join("?" * len(codec.COLUMNS))
_KEPT = {
    "requested_by": (
        "CASE WHEN requested_at > excluded.requested_at THEN requested_by ELSE excluded.requested_by END"
    ),
    "requested_at": "max(requested_at, excluded.requested_at)",
    "deleted_by": "CASE WHEN excluded.deleted_by = '' THEN deleted_by ELSE excluded.deleted_by END",
}
"""Columns that another process may have written, and that the agent's older knowledge must not overwrite."""
_CHANGES = ", ".join(f"{column} = {_KEPT.get(column, f'excluded.{column}')}" for column in codec.COLUMNS[1:])

# Only names of columns are put into these, no value from outside.
_LIST = f"SELECT {_ALL} FROM orphans ORDER BY created, name"  # noqa: S608
_GET = f"SELECT {_ALL} FROM orphans WHERE name = ?"  # noqa: S608
_CREATE = f"INSERT INTO orphans ({_ALL}) VALUES ({_PLACEHOLDERS}) ON CONFLICT (name) DO NOTHING"  # noqa: S608
_UPDATE = f"INSERT INTO orphans ({_ALL}) VALUES ({_PLACEHOLDERS}) ON CONFLICT (name) DO UPDATE SET {_CHANGES}"  # noqa: S608
_INSERT_HISTORY = f"INSERT INTO history ({_ALL}) VALUES ({_PLACEHOLDERS})"  # noqa: S608
_HISTORY = f"SELECT {_ALL} FROM history ORDER BY number"  # noqa: S608
_LAST_CLOSED = f"SELECT number, {_ALL} FROM history WHERE name = ? ORDER BY number DESC LIMIT 1"  # noqa: S608
_UPDATE_HISTORY = f"UPDATE history SET ({_ALL}) = ({_PLACEHOLDERS}) WHERE number = ?"  # noqa: S608
_SET_VALUE = "INSERT OR REPLACE INTO sources (key, value) VALUES (?, ?)"
_CONDITIONS = "troubles"
_CHECKED = "checked"

_BUSY_TIMEOUT = 2.0
"""Seconds to wait for another process that writes."""
_LOCK_PATIENCE = 0.5
"""Seconds to wait for a command that looks whether an agent holds the lock."""

T = TypeVar("T")


class SqliteRecords:
    """Implements `interfaces.Records`."""

    def __init__(self, path: Path, *, agent: bool = False, memory: int = 1000) -> None:
        """Keep records in a file.

        Args:
            path: path of the file.
            agent: whether this is the agent, of which there is one at a time: it creates the file, and moves
                a file aside that cannot be used.
            memory: number of closed records to keep.
        """
        self._path = path.absolute()
        self._file = SqliteFile(self._path, STEPS, busy_timeout=_BUSY_TIMEOUT)
        self._agent = agent
        self._memory = memory
        self._lock = -1
        self._lock_path = Path(f"{self._path}.lock")

    def open(self) -> None:
        """Open the file, and check that everything in it can be read.

        Raises:
            CannotReadError: if not; the message says what to do.
        """
        if self._agent:
            self._take_lock()
            with contextlib.suppress(CannotReadError):
                # This moves aside a file that cannot be used, and the next line creates a new one.
                self._run(_check)
        self._run(_check)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def list(self) -> Sequence[Orphan]:
        """Return the open records, oldest first."""
        return self._run(lambda db: [codec.from_row(row) for row in db.execute(_LIST)])

    async def get(self, name: str) -> Orphan | None:
        """Return one open record."""
        return self._run(lambda db: _get(db, name))

    async def create(self, record: Orphan) -> None:
        """Write a new record, unless there is one of its name."""
        self._run(lambda db: db.execute(_CREATE, codec.to_row(record)))

    async def update(self, record: Orphan) -> None:
        """Write changes of an open record; one that another process has closed stays closed.

        The agent may see an instance go before the command that deleted it has recorded that; the closed
        record then still shows that it was deleted.
        """

        def change(db: sqlite3.Connection) -> None:
            if _get(db, record.name) is not None:
                db.execute(_UPDATE, codec.to_row(record))
            elif found := db.execute(_LAST_CLOSED, (record.name,)).fetchone():
                number, *row = found
                closed = _merged(codec.from_row(row), record)
                db.execute(_UPDATE_HISTORY, (*codec.to_row(closed), number))

        self._run(change)

    async def remove(self, record: Orphan) -> Orphan:
        """Move a closed record to the history."""
        return self._run(lambda db: self._remove(db, record))

    async def request_delete(self, name: str, who: str, now: float) -> Orphan | None:
        """Record that a person wants an orphan deleted."""

        def request(db: sqlite3.Connection) -> Orphan | None:
            db.execute(
                "UPDATE orphans SET requested_by = ?, requested_at = ? WHERE name = ?", (who, now, name)
            )
            return _get(db, name)

        return self._run(request)

    async def history(self) -> Sequence[Orphan]:
        """Return the closed records that are kept, oldest first.

        Raises:
            CannotReadError: if they cannot be read.
        """
        return self._run(lambda db: [codec.from_row(row) for row in db.execute(_HISTORY)])

    async def set_agent_info(self, agent_info: codec.AgentInfo) -> None:
        """Write where the agent reads from.

        Raises:
            CannotReadError: if that cannot be written.
        """
        self._run(lambda db: db.executemany(_SET_VALUE, codec.encode_agent_info(agent_info).items()))

    async def agent_info(self) -> codec.AgentInfo | None:
        """Return where the present or last agent reads from; None if there has been none.

        Raises:
            CannotReadError: if that cannot be read.
        """
        return self._run(lambda db: codec.decode_agent_info(_values(db)))

    async def report_conditions(self, conditions: Mapping[str, str]) -> None:
        """Write what keeps the agent from finding orphans."""
        self._run(lambda db: db.execute(_SET_VALUE, (_CONDITIONS, json.dumps(dict(conditions)))))

    async def conditions(self) -> Mapping[str, str]:
        """Return what keeps the agent from finding orphans, as it has last reported.

        Raises:
            CannotReadError: if it cannot be read.
        """
        found = self._run(lambda db: dict(json.loads(_values(db).get(_CONDITIONS, "{}"))))
        return {str(what): str(why) for what, why in found.items()}

    async def report_check(self, when: float) -> None:
        """Write when the agent has last read everything that it judges by."""
        self._run(lambda db: db.execute(_SET_VALUE, (_CHECKED, repr(when))))

    async def last_check(self) -> float | None:
        """Return when an agent has last read everything that it judges by, None if never.

        Raises:
            CannotReadError: if that cannot be read.
        """
        found = self._run(lambda db: _values(db).get(_CHECKED))
        return None if found is None else float(found)

    def has_agent(self) -> bool:
        """Return whether an agent runs on these records.

        Raises:
            CannotReadError: if that cannot be told.
        """
        try:
            return is_locked(self._lock_path)
        except OSError as error:
            raise CannotReadError(
                f"cannot tell whether an agent runs: {self._lock_path}: {error.strerror}"
            ) from error

    # --- the file ---

    def _remove(self, db: sqlite3.Connection, record: Orphan) -> Orphan:
        known = _get(db, record.name)
        if known is None:
            found = db.execute(_LAST_CLOSED, (record.name,)).fetchone()
            return codec.from_row(found[1:]) if found else record
        closed = _merged(record, known)
        db.execute("DELETE FROM orphans WHERE name = ?", (record.name,))
        db.execute(_INSERT_HISTORY, codec.to_row(closed))
        db.execute(
            "DELETE FROM history WHERE number <= (SELECT max(number) FROM history) - ?", (self._memory,)
        )
        return closed

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in a transaction.

        Raises:
            CannotReadError: if it fails.
        """
        try:
            self._connect()
            with self._file.transaction() as db:
                return work(db)
        except (OSError, *FAILURES) as error:
            self._file.close()
            if self._agent and is_damage(error):
                self._move_aside(str(error))
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CannotReadError(f"cannot use the records {self._path}: {reason}") from error

    def _connect(self) -> None:
        """Connect to the file now at the path, as somebody may have removed the one before."""
        if self._file.is_open and not self._file.was_replaced:
            return
        if self._agent:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        elif not self._path.exists():
            raise CannotReadError(
                f"cannot find the records {self._path}: start the agent with `orphans run`, "
                "or point --records at its file"
            )
        self._file.open()

    def _move_aside(self, reason: str) -> None:
        log.error(
            "records moved aside: orphans are found again, but what people have asked for is lost",
            path=str(self._path),
            kept=str(self._file.move_aside()),
            reason=reason,
        )

    def _take_lock(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock_file(self._lock_path, patience=_LOCK_PATIENCE)
        except BlockingIOError as error:
            raise CannotReadError(
                f"cannot use the records {self._path}: another agent does; "
                "end that one or give other --records"
            ) from error
        except OSError as error:
            raise CannotReadError(
                f"cannot use the records {self._path}: {error.strerror}; "
                "make the directory writable or give other --records"
            ) from error


def _merged(closed: Orphan, known: Orphan) -> Orphan:
    """Return a closed record with what another process has written about it in the meantime.

    The agent may see that an instance is gone before it has read that a person has deleted it.
    """
    closed = closed.with_request_of(known)
    if known.deleted_by and not closed.deleted_by:
        closed = replace(closed, deleted_by=known.deleted_by)
        if closed.resolution in {Resolution.GONE, Resolution.REPLACED}:
            closed = closed.close(Resolution.DELETED, closed.ended, f"deleted by {known.deleted_by}")
    elif closed.resolution is Resolution.GONE and known.requested_by:
        closed = closed.close_as_gone(closed.ended)
    return closed


def _get(db: sqlite3.Connection, name: str) -> Orphan | None:
    row = db.execute(_GET, (name,)).fetchone()
    return None if row is None else codec.from_row(row)


def _check(db: sqlite3.Connection) -> None:
    """Check that everything in the file can be decoded.

    Raises:
        sqlite3.Error: if the file is damaged.
        ValueError: if its content is malformed.
    """
    for query in (_LIST, _HISTORY):
        for row in db.execute(query):
            codec.from_row(row)
    codec.decode_agent_info(_values(db))


def _values(db: sqlite3.Connection) -> dict[str, str]:
    """Return what is not about one orphan, by key."""
    return dict(db.execute("SELECT key, value FROM sources").fetchall())
