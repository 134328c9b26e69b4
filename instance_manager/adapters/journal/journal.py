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
from instance_manager.platform.background import Background
from instance_manager.platform.sqlite import FAILURES, SqliteFile, is_damage, is_transient

log = structlog.get_logger(__name__)

_UPSERT_PROCESS = "INSERT OR REPLACE INTO processes (uuid, listed, replaces, process) VALUES (?, ?, ?, ?)"
_INSERT_EVENT = (
    "INSERT OR REPLACE INTO events (revision, time, previous, deleted, successor, process) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_READ = (
    "SELECT revision, time, previous, deleted, successor, process FROM events "
    "WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?"
)
_CHUNK = 200
"""Changes read at a time, which takes a few milliseconds."""
_PRUNE_EVERY = 256
"""Number of changes that may be kept beyond the limit."""

WORK = "journal-check"
"""Name of this background work."""
_CANNOT_WRITE = "cannot write the journal; a daemon that dies now may lose track of a process"


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
        # The journal is small; checkpoints of few pages never take long.
        self._file = SqliteFile(path, STEPS, pragmas=("synchronous = OFF", "wal_autocheckpoint = 256"))
        self._boot_id = boot_id
        self._memory = memory
        self._everything: Callable[[], Iterable[JournalRecord]] = tuple
        self._recent: Callable[[], Iterable[Change]] = tuple
        self._on_health: Callable[[bool], object] = lambda _: None
        self._retry_interval = retry_interval
        self._next_attempt = 0.0
        self._health_check: asyncio.Task[None] | None = None
        self._of_another_boot = False
        self._pruned = 0
        self.revision = 0
        """Revision of the latest change of earlier daemons."""
        self.epoch = uuid.uuid4().hex[:12]
        """Identifies the sequence of revisions; a new one after a reboot or when the journal was lost."""
        self.failures = 0
        """Number of failed reads and writes since the start."""
        self.last_error = ""
        """Why it is failing now; empty if it is not."""

    def open(self) -> list[JournalRecord]:
        """Return the records of the last daemon; none if they cannot be read, or are of an earlier boot.

        A file that cannot be used is moved aside, so that it can be inspected, and a new one is created.
        """
        try:
            records = self._load()
        except FAILURES as error:
            if not is_damage(error):
                self._file.close()
                self._failed("cannot read the journal; processes are recovered from what they carry", error)
                return []
            self._failed("cannot read the journal; it is moved aside and a new one is begun", error)
            self._file.move_aside()
            with contextlib.suppress(*FAILURES):
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
        """Set what to write after a failure, and what to call about failures.

        Args:
            everything: returns all records.
            recent: returns the changes of this daemon.
            on_health: called with False when writing starts to fail, and with True when it works again.
        """
        self._everything = everything
        self._recent = recent
        self._on_health = on_health

    def start_health_check(self, background: Background) -> None:
        """Start the periodic check: retry failed writes; recreate a file that was unlinked."""
        self._health_check = background.every(WORK, self._retry_interval, self._check_health)

    def close(self) -> None:
        """Stop writing."""
        if self._health_check is not None:
            self._health_check.cancel()
        self._file.close()

    def _check_health(self) -> None:
        if self._file.was_replaced:
            self._file.close()
            self._failed(_CANNOT_WRITE, FileNotFoundError("somebody has removed or replaced the file"))
        elif self.last_error and time.monotonic() >= self._next_attempt:
            self._catch_up()

    def record(self, record: JournalRecord, changes: Sequence[Change] = ()) -> None:
        """Write a process as it is now, and the changes that are about to be published."""
        text = codec.encode(record.process)
        self._write(_UPSERT_PROCESS, _process_row(record, text), changes, text)

    def forget(self, uuid: str, changes: Sequence[Change]) -> None:
        """Delete the record of a process of which nothing is left, and write its last changes."""
        text = codec.encode(changes[-1].process) if changes else ""
        self._write("DELETE FROM processes WHERE uuid = ?", (uuid,), changes, text)

    async def changes(self) -> AsyncIterator[Change]:
        """Yield the changes of earlier daemons, oldest first; stops early if they cannot be read."""
        begin = 0
        while self._file.is_open:
            try:
                rows = self._file.connection.execute(_READ, (begin, self.revision, _CHUNK)).fetchall()
                changes = [codec.decode_change(row) for row in rows]
            except FAILURES as error:
                self.failures += 1
                log.error("cannot read the history in the journal", reason=str(error))  # noqa: TRY400
                return
            if not changes:
                return
            for change in changes:
                yield change
            begin = changes[-1].revision
            await asyncio.sleep(0)

    def _load(self) -> list[JournalRecord]:
        connection = self._file.open()
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        (latest,) = connection.execute("SELECT max(revision) FROM events").fetchone()
        revision = max(int(meta.get("revision", 0)), latest or 0)
        rows = connection.execute("SELECT listed, replaces, process FROM processes").fetchall()
        records = [JournalRecord(codec.decode(row[2]), bool(row[0]), row[1]) for row in rows]
        epoch = meta.get("epoch", self.epoch)
        self._of_another_boot = meta.get("boot_id") != self._boot_id
        if self._of_another_boot:
            if records:
                log.info("journal emptied: it is of another boot of this machine", processes=len(records))
            records, epoch = [], self.epoch
        self.revision, self.epoch = revision, epoch
        return records

    def _begin(self) -> None:
        """Mark the file as one of this boot."""
        with self._file.transaction() as connection:
            if self._of_another_boot:
                connection.execute("DELETE FROM processes")
                connection.execute("DELETE FROM events")
            connection.executemany(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                [("boot_id", self._boot_id), ("revision", str(self.revision)), ("epoch", self.epoch)],
            )

    def _write(
        self, statement: str, values: tuple[object, ...], changes: Sequence[Change], text: str
    ) -> None:
        """Execute a statement and write its changes in one transaction."""
        if self.last_error and (time.monotonic() < self._next_attempt or not self._catch_up()):
            return
        try:
            if not changes:
                self._file.connection.execute(statement, values)
                return
            with self._file.transaction() as connection:
                connection.execute(statement, values)
                connection.executemany(_INSERT_EVENT, [_event_row(change, text) for change in changes])
                self._prune(connection, changes[-1].revision)
        except sqlite3.Error as error:
            self._failed(_CANNOT_WRITE, error)

    def _prune(self, connection: sqlite3.Connection, revision: int) -> None:
        if revision - self._pruned >= _PRUNE_EVERY:
            connection.execute("DELETE FROM events WHERE revision <= ?", (revision - self._memory,))
            self._pruned = revision

    def _catch_up(self) -> bool:
        """After a failure, write everything, since it is unknown what is missing."""
        try:
            if not self._file.is_open:
                self._reopen()
            with self._file.transaction() as connection:
                connection.execute("DELETE FROM processes")
                connection.executemany(
                    _UPSERT_PROCESS,
                    [_process_row(record, codec.encode(record.process)) for record in self._everything()],
                )
                connection.executemany(
                    _INSERT_EVENT,
                    [_event_row(change, codec.encode(change.process)) for change in self._recent()],
                )
        except FAILURES as error:
            self._failed("cannot write the journal yet", error)
            if not is_transient(error):
                # Opened anew the next time: it may be damaged, or have been read-only when it was opened.
                self._file.close()
            return False
        log.info("journal written again", failures=self.failures)
        self.last_error = ""
        self._on_health(True)
        return True

    def _reopen(self) -> None:
        """Open a journal that could not be opened or written, without changing the revision and epoch."""
        revision, epoch = self.revision, self.epoch
        try:
            self._load()
        except FAILURES as error:
            if not is_damage(error):
                self._file.close()
                raise
            self._file.move_aside()
            self._load()
        finally:
            self.revision, self.epoch = revision, epoch
        self._begin()

    def _failed(self, event: str, error: Exception) -> None:
        self.failures += 1
        self._next_attempt = time.monotonic() + self._retry_interval
        log.debug("journal attempt failed", reason=str(error), retry_in=self._retry_interval)
        if not self.last_error or self.failures % 1000 == 0:
            log.error(event, path=str(self._file.path), reason=str(error), failures=self.failures)
            self._on_health(False)
        self.last_error = f"{event}: {error}"


def _process_row(record: JournalRecord, text: str) -> tuple[str, int, str, str]:
    return record.process.uuid, record.listed, record.replaces, text


def _event_row(change: Change, text: str) -> tuple[int, float, str, int, str, str]:
    return change.revision, change.time, change.previous or "", change.deleted, change.successor, text
