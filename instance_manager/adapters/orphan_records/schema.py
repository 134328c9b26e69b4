"""The schema of the records, as migration steps from every earlier version.

A released step is never changed: records of any age go through all the steps they have not seen yet.
"""

import sqlite3

_RECORD = """
    instance TEXT NOT NULL,
    uuid TEXT NOT NULL,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    data_engine TEXT NOT NULL,
    deleting INTEGER NOT NULL,
    instance_manager TEXT NOT NULL,
    created REAL NOT NULL,
    reason TEXT NOT NULL,
    instance_exist INTEGER NOT NULL,
    fate TEXT NOT NULL,
    ended REAL NOT NULL,
    outcome TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_at REAL NOT NULL,
    deleted_by TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    trouble TEXT NOT NULL
"""

STEPS = (
    f"""
    CREATE TABLE orphans (name TEXT PRIMARY KEY, {_RECORD}) WITHOUT ROWID;
    CREATE TABLE history (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, {_RECORD});
    CREATE TABLE sources (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
)
"""Step i leads from version i to version i+1."""

VERSION = len(STEPS)


class NewerSchemaError(Exception):
    """The records were written by a later version of the program."""


def upgrade(connection: sqlite3.Connection) -> None:
    """Migrate records of any earlier version, or an empty file, to the present version.

    Raises:
        NewerSchemaError: if they were written by a later version.
        sqlite3.Error: if they cannot be read or written.
    """
    if _version(connection) == VERSION:
        return
    # Another process may do the same at the same time: the second one finds it done.
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > VERSION:
            raise NewerSchemaError(f"they have schema version {version}, this program knows {VERSION}")
        for number, step in enumerate(STEPS[version:], start=version + 1):
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
