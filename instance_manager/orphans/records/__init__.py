"""Records of orphans in SQLite: what was found, who asked for its deletion, and how it ended."""

from instance_manager.orphans.records.codec import AgentInfo
from instance_manager.orphans.records.sqlite import SqliteRecords

__all__ = ["AgentInfo", "SqliteRecords"]
