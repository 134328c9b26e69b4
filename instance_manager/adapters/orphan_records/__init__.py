"""Records of orphans in SQLite: what was found, what a person has asked for, and what became of it."""

from instance_manager.adapters.orphan_records.codec import Sources
from instance_manager.adapters.orphan_records.records import SqliteRecords

__all__ = ["Sources", "SqliteRecords"]
