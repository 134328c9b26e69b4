"""SQLite files: opening, transactions, migration, and what to do about a damaged one."""

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

from instance_manager.platform.linux import file_identity

_NOT_THE_FILE = {
    *(
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    ),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL),
}
"""Codes of errors that are not the file's fault; anything else is damage, a missing table too."""
_VERSIONS = slice(18, 20)
"""Where a file has the versions of its format, for writing and for reading."""
_LATEST_VERSION = 2
_ASIDE = ".unusable"


class NewerSchemaError(Exception):
    """The file was written by a later version of the program."""


FAILURES = (sqlite3.Error, OverflowError, TypeError, ValueError, NewerSchemaError)
"""What reading may raise, since a damaged file may hold values of any type."""


class SqliteFile:
    """A file in WAL mode, and the connection to it."""

    def __init__(
        self, path: Path, steps: Sequence[str], *, busy_timeout: float = 0.0, pragmas: Sequence[str] = ()
    ) -> None:
        """Connect to nothing yet.

        Args:
            path: path of the file.
            steps: the migration steps, see `upgrade`.
            busy_timeout: seconds to wait for another process that writes.
            pragmas: further settings of the connection.
        """
        self.path = path
        self._steps = steps
        self._busy_timeout = busy_timeout
        self._pragmas = ("journal_mode = WAL", *pragmas)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def open(self) -> sqlite3.Connection:
        """Connect to the file that is at the path now, check it and migrate it; create it if there is none.

        Raises:
            sqlite3.Error, ValueError, NewerSchemaError: if it cannot be used; see `is_damage`.
        """
        self.close()
        self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=self._busy_timeout)
        try:
            check_format(self.path)
            for pragma in self._pragmas:
                self._connection.execute(f"PRAGMA {pragma}")
            self._identity = file_identity(self.path)
            check(self._connection)
            upgrade(self._connection, self._steps)
        except BaseException:
            self.close()
            raise
        return self._connection

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def was_replaced(self) -> bool:
        """Whether the file at the path is no longer the open one: writing to that would be lost."""
        return self._connection is not None and file_identity(self.path) != self._identity

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection.

        Raises:
            sqlite3.OperationalError: if there is none.
        """
        if self._connection is None:
            raise sqlite3.OperationalError("it could not be opened")
        return self._connection

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a transaction, see below."""
        return transaction(self.connection)

    def move_aside(self) -> Path:
        """Disconnect, and rename a damaged file so that it can be inspected; returns its new path."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                # So named that SQLite finds what belongs together.
                Path(f"{self.path}{suffix}").rename(f"{self.path}{_ASIDE}{suffix}")
        return Path(f"{self.path}{_ASIDE}")


def check_format(path: Path) -> None:
    """Check that a file is of a format that can be written: SQLite takes one of a later format for read-only.

    Raises:
        ValueError: if it is not, which is damage: this program writes no such format.
    """
    header = b""
    with suppress(OSError):  # SQLite says it better
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                header = os.read(fd, _VERSIONS.stop)
        finally:
            os.close(fd)
    if any(version > _LATEST_VERSION for version in header[_VERSIONS]):
        raise ValueError("the file is damaged: it has an unknown format")


def check(connection: sqlite3.Connection) -> None:
    """Check a file as a whole: one that can be read may still be damaged in a page that only writing uses.

    Raises:
        ValueError: if it is damaged.
        sqlite3.Error: if it is so damaged that SQLite cannot check it, or cannot be read.
    """
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise ValueError(f"the file is damaged: {answer}")


def read_only(path: Path) -> AbstractContextManager[sqlite3.Connection]:
    """Connect to a file that somebody else writes, for the time of a `with` block.

    Raises:
        sqlite3.Error: if it cannot be opened.
    """
    return closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True))


def moved_aside(path: Path) -> list[Path]:
    """Return the damaged files that were once at a path."""
    return sorted(path.parent.glob(f"{path.name}*{_ASIDE}"))


def is_damage(error: Exception) -> bool:
    """Return whether a file will never be usable; being busy, full or forbidden is temporary."""
    # The last two are mistakes of this program, and say nothing about the file.
    excused = (OSError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
    return not isinstance(error, excused) and _code(error) not in _NOT_THE_FILE


def is_transient(error: Exception) -> bool:
    """Return whether what has failed can succeed with the same connection."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Do the work of a `with` block in a transaction that may write from the start; an error takes it back.

    Args:
        connection: one that begins no transactions by itself (`isolation_level=None`).

    Raises:
        sqlite3.Error: if it cannot be begun or committed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def upgrade(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Migrate a file of any earlier version, or an empty one, to the present version.

    Args:
        connection: as for `transaction`.
        steps: step i leads from version i to version i+1; each of its statements ends with a semicolon, and
            there are no others in it.

    Raises:
        NewerSchemaError: if it was written by a later version.
        sqlite3.Error: if it cannot be read or written.
    """
    if _version(connection, len(steps)) == len(steps):
        return
    with transaction(connection):
        # Another process may have done the same in the meantime.
        version = _version(connection, len(steps))
        for number, step in enumerate(steps[version:], start=version + 1):
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _version(connection: sqlite3.Connection, known: int) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known:
        raise NewerSchemaError(f"the file has schema version {version}, this program knows {known}")
    return int(version)
