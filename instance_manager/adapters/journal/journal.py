"""Writing and reading the journal. A journal in trouble never stops the daemon; it is counted and told.

It has to survive the daemon, not the machine: after a reboot nothing in it is true. So nothing waits for the
disk (`synchronous=OFF`): what was written is in the kernel's hands and outlives a kill -9.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from instance_manager.adapters.journal import codec
from instance_manager.adapters.journal.schema import NewerSchemaError, upgrade
from instance_manager.app.interfaces import JournalRecord

log = structlog.get_logger(__name__)

_UPSERT = (
    "INSERT OR REPLACE INTO processes (uuid, listed, replaces, process, revision) VALUES (?, ?, ?, ?, ?)"
)


class SqliteJournal:
    """Implements `app.interfaces.Journal`."""

    def __init__(self, path: Path, boot_id: str, *, retry_interval: float = 1.0) -> None:
        """Keep the journal in a file.

        Args:
            path: of the file.
            boot_id: of this boot of the machine.
            retry_interval: seconds from a failure to the next attempt, which writes everything.
        """
        self._path = path
        self._boot_id = boot_id
        self._connection: sqlite3.Connection | None = None
        self._everything: Callable[[], Iterable[JournalRecord]] = tuple
        self._on_health: Callable[[bool], object] = lambda _: None
        self._revision = 0
        self._retry_interval = retry_interval
        self._next_attempt = 0.0
        self.troubles = 0
        """How often reading or writing has failed since the start."""
        self.trouble = ""
        """What is wrong with it now; empty if nothing is."""

    def open(self) -> tuple[list[JournalRecord], int]:
        """Return what the last daemon knew and the last revision; nothing if that cannot be read or trusted.

        A file that cannot be used is moved aside, so that it can be looked at, and a new one is begun.
        """
        try:
            return self._load()
        except (sqlite3.Error, ValueError, NewerSchemaError) as error:
            self._failed("cannot read the journal; it is moved aside and a new one is begun", error)
        self._close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                old = Path(f"{self._path}{suffix}")
                old.rename(f"{old}.unusable")
        with contextlib.suppress(sqlite3.Error, ValueError, NewerSchemaError):
            self._load()
        return [], 0

    def follow(
        self, everything: Callable[[], Iterable[JournalRecord]], on_health: Callable[[bool], object]
    ) -> None:
        """Say how to get every record there should be, to catch up with after a failure, and whom to tell.

        Args:
            everything: returns the records.
            on_health: called with False when writing begins to fail and with True when it works again.
        """
        self._everything = everything
        self._on_health = on_health

    def close(self) -> None:
        """Stop writing."""
        self._close()

    def record(self, record: JournalRecord, revision: int) -> None:
        """Write down a process as it is now."""
        self._revision = revision
        self._write(_UPSERT, _row(record, revision))

    def forget(self, uuid: str, revision: int) -> None:
        """Cross out a process of which nothing is left."""
        self._revision = revision
        self._write("DELETE FROM processes WHERE uuid = ?", (uuid,))
        self._write("UPDATE meta SET value = ? WHERE key = 'revision'", (str(revision),))

    def _load(self) -> tuple[list[JournalRecord], int]:
        connection = self._connect()
        upgrade(connection)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        rows = connection.execute("SELECT listed, replaces, process, revision FROM processes").fetchall()
        records = [JournalRecord(codec.decode(row[2]), bool(row[0]), row[1]) for row in rows]
        # Each row tells of the latest change when it was written; the last one that was deleted is in `meta`.
        self._revision = max([int(meta.get("revision", 0)), *(row[3] for row in rows)])
        if meta.get("boot_id") != self._boot_id:
            if records:
                log.info("journal emptied: it tells of another boot of this machine", processes=len(records))
            connection.execute("DELETE FROM processes")
            records = []
        connection.executemany(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
            [("boot_id", self._boot_id), ("revision", str(self._revision))],
        )
        self._connection = connection
        return records, self._revision

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        # The whole of it is small; checkpoints of a few pages never take long.
        connection.execute("PRAGMA wal_autocheckpoint = 256")
        return connection

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self.trouble and (time.monotonic() < self._next_attempt or not self._catch_up()):
            return
        try:
            if self._connection is None:
                raise sqlite3.OperationalError("it could not be opened")
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            self._failed(
                "cannot write the journal; a daemon that dies now may lose track of a process", error
            )

    def _catch_up(self) -> bool:
        """After a failure: write down everything, since nobody knows what is missing."""
        try:
            if self._connection is None:
                self._load()
            assert self._connection is not None  # noqa: S101 - _load has opened it or raised
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("DELETE FROM processes")
                self._connection.executemany(
                    _UPSERT, [_row(record, self._revision) for record in self._everything()]
                )
                self._connection.execute(
                    "UPDATE meta SET value = ? WHERE key = 'revision'", (str(self._revision),)
                )
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, ValueError, NewerSchemaError) as error:
            self._failed("cannot write the journal yet", error)
            return False
        log.info("journal written again", failures=self.troubles)
        self.trouble = ""
        self._on_health(True)
        return True

    def _failed(self, event: str, error: Exception) -> None:
        self.troubles += 1
        self._next_attempt = time.monotonic() + self._retry_interval
        if not self.trouble or self.troubles % 1000 == 0:
            log.error(event, path=str(self._path), reason=str(error), failures=self.troubles)
            self._on_health(False)
        self.trouble = f"{event}: {error}"

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _row(record: JournalRecord, revision: int) -> tuple[str, int, str, str, int]:
    process = record.process
    return process.uuid, record.listed, record.replaces, codec.encode(process), revision
