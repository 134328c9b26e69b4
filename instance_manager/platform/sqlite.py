"""What the journal and the orphan records have in common: transactions, and migration of old files."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


class NewerSchemaError(Exception):
    """The file was written by a later version of the program."""


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
