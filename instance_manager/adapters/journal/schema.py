"""The schema of the journal, as migration steps from every earlier version.

A released step is never changed: a journal of any age goes through all the steps it has not seen yet.
"""

STEPS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE processes (
        uuid TEXT PRIMARY KEY,
        listed INTEGER NOT NULL,
        replaces TEXT NOT NULL,
        process TEXT NOT NULL,
        revision INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE events (
        revision INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        previous TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        process TEXT NOT NULL
    );
    INSERT OR REPLACE INTO meta (key, value) SELECT 'revision', CAST(max(
        coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'revision'), 0),
        coalesce((SELECT max(revision) FROM processes), 0)
    ) AS TEXT);
    CREATE TABLE processes_2 (
        uuid TEXT PRIMARY KEY,
        listed INTEGER NOT NULL,
        replaces TEXT NOT NULL,
        process TEXT NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO processes_2 SELECT uuid, listed, replaces, process FROM processes;
    DROP TABLE processes;
    ALTER TABLE processes_2 RENAME TO processes;
    """,
    """
    ALTER TABLE events ADD COLUMN successor TEXT NOT NULL DEFAULT '';
    """,
)
"""Step i leads from version i to version i+1."""
