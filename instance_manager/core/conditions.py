"""Conditions: observations about a process in addition to its state."""

import hashlib
from collections.abc import Set as AbstractSet

from instance_manager.core.names import is_engine_name, volume_of_engine

FILESYSTEM_READ_ONLY = "FilesystemReadOnly"
"""The file system on the engine's volume is mounted read-only, usually because of an I/O error."""


def volume_key(volume: str) -> str:
    """Return the directory name under which the CSI driver mounts a volume globally."""
    return hashlib.sha256(volume.encode()).hexdigest()


def observe(name: str, read_only_volumes: AbstractSet[str]) -> dict[str, bool]:
    """Return the conditions of a process, given the keys of the volumes that are mounted read-only."""
    if not is_engine_name(name):
        return {}
    return {FILESYSTEM_READ_ONLY: volume_key(volume_of_engine(name)) in read_only_volumes}
