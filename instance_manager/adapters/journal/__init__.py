"""The journal: what the daemon knows about its processes, in SQLite, for the next daemon."""

from instance_manager.adapters.journal.inspection import inspect
from instance_manager.adapters.journal.journal import SqliteJournal
from instance_manager.adapters.journal.state_dir import StateDir, StateDirError

__all__ = ["SqliteJournal", "StateDir", "StateDirError", "inspect"]
