"""The journal: what the daemon knows about its processes, in SQLite, for the daemon that comes after it."""

from instance_manager.adapters.journal.journal import SqliteJournal
from instance_manager.adapters.journal.state_dir import StateDir, StateDirError, boot_id

__all__ = ["SqliteJournal", "StateDir", "StateDirError", "boot_id"]
