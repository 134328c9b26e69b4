"""Writing and reading the journal. A failing journal never stops the daemon; failures are counted and logged.

The journal must survive the daemon, not the machine: after a reboot nothing in it is true. So nothing waits
for the disk (`synchronous=OFF`): what was written is in the page cache and outlives a kill -9.
"""

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import structlog

from instance_manager.adapters.journal import codec
from instance_manager.adapters.journal.schema import STEPS
from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.change import Change
from instance_manager.platform.linux import file_identity
from instance_manager.platform.sqlite import NewerSchemaError, transaction, upgrade

log = structlog.get_logger(__name__)

_UPSERT = "INSERT OR REPLACE INTO processes (uuid, listed, replaces, process) VALUES (?, ?, ?, ?)"
_TELL = "INSERT OR REPLACE INTO events (revision, time, previous, deleted, process) VALUES (?, ?, ?, ?, ?)"
_READ = (
    "SELECT revision, time, previous, deleted, process FROM events "
    "WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?"
)
_CHUNK = 200
"""Changes read at a time, which takes a few milliseconds."""
_PRUNE_EVERY = 256
"""Number of changes that may be kept beyond the limit."""

_CANNOT_WRITE = "cannot write the journal; a daemon that dies now may lose track of a process"
_PASSING = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL),
}
"""Codes of errors that are not the file's fault; anything else is damage, a missing table too."""
_UNREADABLE = (sqlite3.Error, OverflowError, TypeError, ValueError, NewerSchemaError)
"""What reading may raise, since a damaged file may hold values of any type."""


class SqliteJournal:
    """Implements `app.interfaces.Journal` and, for earlier daemons' changes, `app.interfaces.EventStore`."""

    def __init__(self, path: Path, boot_id: str, *, memory: int = 5000, retry_interval: float = 1.0) -> None:
        """Keep the journal in a file.

        Args:
            path: path of the file.
            boot_id: ID of this boot of the machine.
            memory: number of changes to keep.
            retry_interval: seconds from a failure to the next attempt, which writes everything.
        """
        self._path = path
        self._boot_id = boot_id
        self._memory = memory
        self._connection: sqlite3.Connection | None = None
        self._everything: Callable[[], Iterable[JournalRecord]] = tuple
        self._recent: Callable[[], Iterable[Change]] = tuple
        self._on_health: Callable[[bool], object] = lambda _: None
        self._retry_interval = retry_interval
        self._next_attempt = 0.0
        self._next_look: asyncio.TimerHandle | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the open file."""
        self._of_another_boot = False
        self._pruned = 0
        self.revision = 0
        """Revision of the latest change of earlier daemons."""
        self.epoch = uuid.uuid4().hex[:12]
        """Identifies the sequence of revisions; a new one after a reboot or when the journal was lost."""
        self.troubles = 0
        """Number of failed reads and writes since the start."""
        self.trouble = ""
        """Why it is failing now; empty if it is not."""

    def open(self) -> list[JournalRecord]:
        """Return the records of the last daemon; none if they cannot be read, or are of an earlier boot.

        A file that cannot be used is moved aside, so that it can be inspected, and a new one is created.
        """
        try:
            records = self._load()
        except _UNREADABLE as error:
            if not _is_damage(error):
                self._disconnect()
                self._failed("cannot read the journal; processes are recovered from what they carry", error)
                return []
            self._failed("cannot read the journal; it is moved aside and a new one is begun", error)
            self._move_aside()
            with contextlib.suppress(*_UNREADABLE):
                self._load()
                self._begin()
                # The new file works, so the first process is written at once.
                self._next_attempt = 0.0
            return []
        try:
            self._begin()
        except sqlite3.Error as error:  # full or read-only, but what was read is as true as ever
            self._failed(_CANNOT_WRITE, error)
        return records

    def follow(
        self,
        everything: Callable[[], Iterable[JournalRecord]],
        recent: Callable[[], Iterable[Change]],
        on_health: Callable[[bool], object],
    ) -> None:
        """Set the sources for writing everything again after a failure, and who is told of failures.

        Args:
            everything: returns all records.
            recent: returns the changes of this daemon.
            on_health: called with False when writing starts to fail, and with True when it works again.
        """
        self._everything = everything
        self._recent = recent
        self._on_health = on_health

    def tend(self) -> None:
        """Look after the file from now on, on the running event loop, until it is closed.

        What cannot be written is tried again although nothing changes, and a file that somebody has removed,
        into which everything could be written without an error, is made again.
        """
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(self._retry_interval, self._look_after)

    def close(self) -> None:
        """Stop writing."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._disconnect()

    def _look_after(self) -> None:
        if self._connection is not None and file_identity(self._path) != self._file:
            self._disconnect()
            self._failed(_CANNOT_WRITE, FileNotFoundError("somebody has removed or replaced the file"))
        elif self.trouble and time.monotonic() >= self._next_attempt:
            self._catch_up()
        self.tend()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def record(self, record: JournalRecord, changes: Sequence[Change] = ()) -> None:
        """Write a process as it is now, and the changes that are about to be published."""
        text = codec.encode(record.process)
        self._write(_UPSERT, _row(record, text), changes, text)

    def forget(self, uuid: str, changes: Sequence[Change]) -> None:
        """Delete the record of a process of which nothing is left, and write its last changes."""
        text = codec.encode(changes[-1].process) if changes else ""
        self._write("DELETE FROM processes WHERE uuid = ?", (uuid,), changes, text)

    async def changes(self) -> AsyncIterator[Change]:
        """Yield the changes of earlier daemons, oldest first; stops early if they cannot be read."""
        begin = 0
        while self._connection is not None:
            try:
                rows = self._connection.execute(_READ, (begin, self.revision, _CHUNK)).fetchall()
                told = [codec.decode_change(row) for row in rows]
            except _UNREADABLE as error:
                self.troubles += 1
                log.error("cannot read the history in the journal", reason=str(error))  # noqa: TRY400
                return
            if not told:
                return
            for change in told:
                yield change
            begin = told[-1].revision
            await asyncio.sleep(0)

    def _load(self) -> list[JournalRecord]:
        connection = self._connect()
        # A file that can be read may still be damaged in a page that is only used when writing.
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise ValueError(f"the file is damaged: {state}")
        upgrade(connection, STEPS)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        (latest,) = connection.execute("SELECT max(revision) FROM events").fetchone()
        revision = max(int(meta.get("revision", 0)), latest or 0)
        rows = connection.execute("SELECT listed, replaces, process FROM processes").fetchall()
        records = [JournalRecord(codec.decode(row[2]), bool(row[0]), row[1]) for row in rows]
        epoch = meta.get("epoch", self.epoch)
        self._of_another_boot = meta.get("boot_id") != self._boot_id
        if self._of_another_boot:
            if records:
                log.info("journal emptied: it tells of another boot of this machine", processes=len(records))
            records, epoch = [], self.epoch
        self.revision, self.epoch = revision, epoch
        return records

    def _begin(self) -> None:
        """Say in the file that it is of this boot from now on."""
        with self._transaction() as connection:
            if self._of_another_boot:
                connection.execute("DELETE FROM processes")
                connection.execute("DELETE FROM events")
            connection.executemany(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                [("boot_id", self._boot_id), ("revision", str(self.revision)), ("epoch", self.epoch)],
            )

    def _move_aside(self) -> None:
        self._disconnect()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                # So named that SQLite finds what belongs together.
                Path(f"{self._path}{suffix}").rename(f"{self._path}.unusable{suffix}")

    def _connect(self) -> sqlite3.Connection:
        self._disconnect()
        connection = self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        # The journal is small; checkpoints of few pages never take long.
        connection.execute("PRAGMA wal_autocheckpoint = 256")
        self._file = file_identity(self._path)
        return connection

    def _write(
        self, statement: str, values: tuple[object, ...], changes: Sequence[Change], text: str
    ) -> None:
        """Execute a statement and write its changes in one transaction."""
        if self.trouble and (time.monotonic() < self._next_attempt or not self._catch_up()):
            return
        try:
            if self._connection is None:
                raise sqlite3.OperationalError("it could not be opened")
            if not changes:
                self._connection.execute(statement, values)
                return
            with self._transaction() as connection:
                connection.execute(statement, values)
                connection.executemany(_TELL, [_told(change, text) for change in changes])
                self._prune(connection, changes[-1].revision)
        except sqlite3.Error as error:
            self._failed(_CANNOT_WRITE, error)

    def _transaction(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        assert self._connection is not None  # noqa: S101 - whoever calls has looked
        return transaction(self._connection)

    def _prune(self, connection: sqlite3.Connection, revision: int) -> None:
        if revision - self._pruned >= _PRUNE_EVERY:
            connection.execute("DELETE FROM events WHERE revision <= ?", (revision - self._memory,))
            self._pruned = revision

    def _catch_up(self) -> bool:
        """After a failure, write everything, since it is unknown what is missing."""
        try:
            if self._connection is None:
                self._reopen()
            with self._transaction() as connection:
                connection.execute("DELETE FROM processes")
                connection.executemany(
                    _UPSERT, [_row(record, codec.encode(record.process)) for record in self._everything()]
                )
                connection.executemany(
                    _TELL, [_told(change, codec.encode(change.process)) for change in self._recent()]
                )
        except _UNREADABLE as error:
            self._failed("cannot write the journal yet", error)
            if not _passes(error):
                # Opened anew the next time: it may be damaged, or have been read-only when it was opened.
                self._disconnect()
            return False
        log.info("journal written again", failures=self.troubles)
        self.trouble = ""
        self._on_health(True)
        return True

    def _reopen(self) -> None:
        """Open a journal that could not be opened or written, without changing the revision and epoch."""
        revision, epoch = self.revision, self.epoch
        try:
            self._load()
        except _UNREADABLE as error:
            if not _is_damage(error):
                self._disconnect()
                raise
            self._move_aside()
            self._load()
        finally:
            self.revision, self.epoch = revision, epoch
        self._begin()

    def _failed(self, event: str, error: Exception) -> None:
        self.troubles += 1
        self._next_attempt = time.monotonic() + self._retry_interval
        log.debug("journal attempt failed", reason=str(error), retry_in=self._retry_interval)
        if not self.trouble or self.troubles % 1000 == 0:
            log.error(event, path=str(self._path), reason=str(error), failures=self.troubles)
            self._on_health(False)
        self.trouble = f"{event}: {error}"


def _is_damage(error: Exception) -> bool:
    """Tell whether a file will never be of use; being busy, full or forbidden passes."""
    return _code(error) not in _PASSING


def _passes(error: Exception) -> bool:
    """Tell whether what has failed can succeed with the same connection."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF


def _row(record: JournalRecord, text: str) -> tuple[str, int, str, str]:
    return record.process.uuid, record.listed, record.replaces, text


def _told(change: Change, text: str) -> tuple[int, float, str, int, str]:
    return change.revision, change.time, change.previous or "", change.deleted, text
