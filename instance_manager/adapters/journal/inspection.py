"""What can be seen of a journal from outside, while a daemon may be using it."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from instance_manager.platform import contract
from instance_manager.platform.sqlite import check, check_format, is_damage, moved_aside, read_only


@dataclass(frozen=True, slots=True)
class JournalInspection:
    """The state of the file."""

    exists: bool
    uuids: frozenset[str]
    """UUIDs of the processes in it; empty if it cannot be read."""
    error: str
    """Why it cannot be read; empty if it can."""
    damaged: bool
    """Whether that is for good."""
    moved_aside: list[Path]
    """Damaged journals of earlier daemons."""


def inspect(path: Path) -> JournalInspection:
    """Read a journal without changing anything."""
    uuids, error, damaged = frozenset[str](), "", False
    exists = os.access(path, os.F_OK)
    try:
        with read_only(path) as connection:
            check_format(path)
            check(connection)
            uuids = frozenset(uuid for (uuid,) in connection.execute(contract.JOURNALED_UUIDS))
    except (sqlite3.Error, ValueError) as caught:
        error, damaged = str(caught), is_damage(caught)
    return JournalInspection(exists, uuids, error, damaged, moved_aside(path))
