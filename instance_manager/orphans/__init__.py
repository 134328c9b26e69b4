"""Orphans: instances that still run although nothing owns them any more."""
