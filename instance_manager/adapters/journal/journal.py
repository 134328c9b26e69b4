"""Writing and reading the journal. A journal in trouble never stops the daemon; it is counted and told.

It has to survive the daemon, not the machine: after a reboot nothing in it is true. So nothing waits for the
disk (`synchronous=OFF`): what was written is in the kernel's hands and outlives a kill -9.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from instance_manager.adapters.journal import codec
from instance_manager.adapters.journal.schema import NewerSchemaError, upgrade
from instance_manager.app.interfaces import JournalRecord

log = structlog.get_logger(__name__)

_UPSERT = "INSERT OR REPLACE INTO processes (uuid, listed, replaces, process) VALUES (?, ?, ?, ?)"


class SqliteJournal:
    """Implements `app.interfaces.Journal`."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._connection: sqlite3.Connection | None = None
        self._everything: Callable[[], Iterable[JournalRecord]] = tuple
        self._on_health: Callable[[bool], object] = lambda _: None
        self._revision = 0
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

    def record(self, record: JournalRecord) -> None:
        """Write down a process as it is now."""
        self._write(_UPSERT, _row(record))

    def forget(self, uuid: str) -> None:
        """Cross out a process of which nothing is left."""
        self._write("DELETE FROM processes WHERE uuid = ?", (uuid,))

    def revision(self, revision: int) -> None:
        """Write down the revision of the latest change."""
        self._revision = revision
        self._write("UPDATE meta SET value = ? WHERE key = 'revision'", (str(revision),))

    def _load(self) -> tuple[list[JournalRecord], int]:
        connection = self._connect()
        upgrade(connection)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        rows = connection.execute("SELECT listed, replaces, process FROM processes").fetchall()
        records = [
            JournalRecord(codec.decode(text), bool(listed), replaces) for listed, replaces, text in rows
        ]
        self._revision = int(meta.get("revision", 0))
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
        if self.trouble and not self._catch_up():
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
                self._connection.executemany(_UPSERT, map(_row, self._everything()))
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
        if not self.trouble or self.troubles % 1000 == 0:
            log.error(event, path=str(self._path), reason=str(error), failures=self.troubles)
            self._on_health(False)
        self.trouble = f"{event}: {error}"

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _row(record: JournalRecord) -> tuple[str, int, str, str]:
    return record.process.uuid, record.listed, record.replaces, codec.encode(record.process)
