"""The schema of the records, as migration steps from every earlier version.

A released step is never changed: records of any age go through all the steps they have not seen yet.
"""

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
