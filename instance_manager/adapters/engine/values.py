"""Conversion of what engines and replicas tell into values of the core."""

import dataclasses
from typing import Any, TypeVar

from instance_manager.core.engine import Disk, Mode, ReplicaInfo, parse_size
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.ptypes import controller_pb2, replica_pb2

T = TypeVar("T")

MOST_FILES = 1024
"""More than a replica can have: an engine takes no more than 250 snapshots."""
MOST_LABELS = 16 * MOST_FILES

_MODES = {
    controller_pb2.ReplicaMode.WO: Mode.WO,
    controller_pb2.ReplicaMode.RW: Mode.RW,
    controller_pb2.ReplicaMode.ERR: Mode.ERR,
}


def check_count(failure: str, what: str, count: int, most: int) -> None:
    """Check that an answer has no more of something than can be: all of it would hold up the daemon.

    Raises:
        UpstreamError: if it has.
    """
    if count > most:
        raise UpstreamError("UNKNOWN", f"{failure}: it tells of {count} {what}; {most} are the most")


def mode(number: int) -> Mode:
    """Return the mode of a replica; in one that nobody knows yet, it cannot be used."""
    return _MODES.get(number, Mode.ERR)  # type: ignore[call-overload,no-any-return]


def read(kind: type[T], message: Any) -> T:
    """Return a message as a value whose fields have the same names."""
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    values = {field.name: getattr(message, field.name) for field in fields}
    scalars = (str, int, bool)
    return kind(**{name: each if isinstance(each, scalars) else tuple(each) for name, each in values.items()})


def info(told: replica_pb2.Replica, failure: str) -> ReplicaInfo:
    """Return what a replica tells of itself.

    Args:
        told: the message.
        failure: begins the message of an error.

    Raises:
        UpstreamError: if it tells of more than a replica can have, or of no size.
    """
    check_count(failure, "files", len(told.disks), MOST_FILES)
    check_count(failure, "children", sum(len(disk.children) for disk in told.disks.values()), MOST_FILES)
    check_count(failure, "labels", sum(len(disk.labels) for disk in told.disks.values()), MOST_LABELS)
    try:
        size = parse_size(told.size)
    except ValueError as error:
        raise UpstreamError("UNKNOWN", f"{failure}: cannot read its size {told.size[:32]!r}") from error
    return ReplicaInfo(
        rebuilding=told.rebuilding,
        state=told.state,
        size=size,
        backing_file=told.backing_file,
        disks={name: _disk(disk) for name, disk in told.disks.items()},
    )


def _disk(told: replica_pb2.DiskInfo) -> Disk:
    return Disk(
        name=told.name,
        parent=told.parent,
        children=dict(told.children),
        removed=told.removed,
        user_created=told.user_created,
        created=told.created,
        size=told.size,
        labels=dict(told.labels),
    )
