"""Records of orphans in SQLite: what was found, who asked for its deletion, and how it ended."""

from instance_manager.adapters.orphan_records.codec import Sources
from instance_manager.adapters.orphan_records.records import SqliteRecords

__all__ = ["Sources", "SqliteRecords"]
