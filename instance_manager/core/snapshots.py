"""The snapshots of a volume, from the files that its replicas have."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from instance_manager.core.engine import Disk, ReplicaInfo
from instance_manager.core.errors import InvalidArgumentError, UpstreamError, shorten

HEAD = "volume-head"
"""Name under which the file that is written to is listed with the snapshots."""
LONGEST_NAME = 255 - len("volume-snap-.img") - 18
"""Bytes of the longest name of a snapshot: the names of some of its files end with as many more."""
_TOLD_BYTES = 64
_SNAPSHOT_FILE = re.compile(r"volume-snap-(?P<name>.+)\.img", re.DOTALL)
_HEAD_FILE = re.compile(r"volume-head-[0-9]+\.img")


def snapshot_file(name: str) -> str:
    """Return the name of the file of a snapshot."""
    return f"volume-snap-{name}.img"


def check_new_snapshot(name: str) -> None:
    """Check that files can be named after a snapshot; an empty name is for the engine to choose.

    Raises:
        InvalidArgumentError: if not. The engine would try it, and every replica of the volume fail.
    """
    cannot = f"cannot take the snapshot {shorten(name, _TOLD_BYTES)!r}"
    if "/" in name or "\0" in name:
        raise InvalidArgumentError(f"{cannot}: write a name without / and NUL")
    if len(name.encode()) > LONGEST_NAME:
        raise InvalidArgumentError(f"{cannot}: write a name of at most {LONGEST_NAME} bytes")


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
