"""What is asked of the v1 engine of a volume and of its replicas, and what they answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

_SIZE = re.compile(r"[0-9]{1,19}")
LARGEST_SIZE = (1 << 63) - 1
"""Bytes; managers and engines take a size with a sign."""


def parse_size(text: str) -> int:
    """Read a size in bytes, as engines write it: decimal digits and nothing else.

    Raises:
        ValueError: if it is none, or does not fit into 64 bits.
    """
    if not _SIZE.fullmatch(text) or int(text) > LARGEST_SIZE:
        raise ValueError("no size")
    return int(text)


class Mode(StrEnum):
    """What a replica is to its engine."""

    WO = auto()
    """It is being rebuilt."""
    RW = auto()
    """It is complete."""
    ERR = auto()
    """It is no longer used."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Engine:
    """Which engine is meant; it refuses calls with names that are not its own."""

    address: str
    """HOST:PORT."""
    volume: str
    """Name of the volume; empty: whichever it is."""
    name: str
    """Empty: whichever it is."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica, as its engine has it."""

    address: str
    """tcp://HOST:PORT: managers match on it."""
    mode: Mode
    volume: str
    """Name of the volume; empty: whichever it is."""
    name: str = ""
    """Empty: whichever it is. An engine does not know it."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume, as far as decisions depend on it."""

    name: str
    size: int
    """Bytes."""
    replica_count: int
    frontend_state: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A file of a replica, or a snapshot; the size is in bytes."""

    name: str
    parent: str = ""
    children: Mapping[str, bool] = field(default_factory=dict)
    removed: bool = False
    user_created: bool = False
    created: str = ""
    size: str = "0"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A replica, as it has itself."""

    rebuilding: bool = False
    state: str = ""
    size: int = 0
    """Bytes."""
    backing_file: str = ""
    disks: Mapping[str, Disk] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PurgeStatus:
    """How a purge goes on a replica; progress in percent."""

    is_purging: bool = False
    error: str = ""
    progress: int = 0
    state: str = ""


@dataclass(frozen=True, slots=True)
class CloneStatus:
    """How a clone goes on a replica; progress in percent."""

    is_cloning: bool = False
    error: str = ""
    progress: int = 0
    state: str = ""
    from_replica_address: str = ""
    snapshot_name: str = ""


@dataclass(frozen=True, slots=True)
class HashStatus:
    """How the checksum of a snapshot is computed on a replica; `state` is in_progress, complete or error."""

    state: str = ""
    checksum: str = ""
    error: str = ""
    silently_corrupted: bool = False


@dataclass(frozen=True, slots=True)
class RebuildStatus:
    """How the rebuild of a replica goes; progress in percent."""

    is_rebuilding: bool = False
    error: str = ""
    progress: int = 0
    state: str = ""
    from_replica_address: str = ""
    """Of older engines; the list is empty then."""
    from_replica_address_list: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreStatus:
    """How a restore goes on a replica; progress in percent."""

    is_restoring: bool = False
    last_restored: str = ""
    progress: int = 0
    error: str = ""
    dest_file_name: str = ""
    state: str = ""
    backup_url: str = ""
    current_restoring_backup: str = ""
