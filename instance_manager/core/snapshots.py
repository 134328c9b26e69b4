"""The snapshots of a volume, from the files that its replicas have."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from instance_manager.core.engine import Disk, ReplicaInfo
from instance_manager.core.errors import UpstreamError

HEAD = "volume-head"
"""Name under which the file that is written to is listed with the snapshots."""
_SNAPSHOT_FILE = re.compile(r"volume-snap-(?P<name>.+)\.img", re.DOTALL)
_HEAD_FILE = re.compile(r"volume-head-[0-9]+\.img")


def snapshot_file(name: str) -> str:
    """Return the name of the file of a snapshot."""
    return f"volume-snap-{name}.img"


def snapshot_name(file: str) -> str:
    """Return the name of the snapshot that is in a file; `HEAD` for the file that is written to.

    Raises:
        UpstreamError: if the file is neither.
    """
    if found := _SNAPSHOT_FILE.fullmatch(file):
        return found["name"]
    if _HEAD_FILE.fullmatch(file):
        return HEAD
    raise UpstreamError(
        "UNKNOWN", f"cannot tell the snapshot of the file {file!r}: its name has another form"
    )


def snapshots_of(info: ReplicaInfo) -> dict[str, Disk]:
    """Return the snapshots of a replica and its head by name; the backing file is none of them.

    Raises:
        UpstreamError: if a file has a name that no snapshot has.
    """

    @cache
    def name(file: str) -> str:
        return snapshot_name(file) if file and file != info.backing_file else ""

    return {
        name(file): replace(
            disk,
            name=name(file),
            parent=name(disk.parent),
            children={name(child): told for child, told in disk.children.items() if name(child)},
        )
        for file, disk in info.disks.items()
        if name(file)
    }


def most_complete(lists: Iterable[Mapping[str, Disk]]) -> Mapping[str, Disk]:
    """Return the list with the most entries, the first of several; an empty one if there is no list."""
    return max(lists, key=len, default={})
