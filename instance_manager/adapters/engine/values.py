"""Conversion of what engines and replicas tell into values of the core."""

import dataclasses
from typing import Any, TypeVar

from instance_manager.core.engine import Disk, Mode, ReplicaInfo
from instance_manager.pb.ptypes import controller_pb2, replica_pb2

T = TypeVar("T")

_MODES = {
    controller_pb2.ReplicaMode.WO: Mode.WO,
    controller_pb2.ReplicaMode.RW: Mode.RW,
    controller_pb2.ReplicaMode.ERR: Mode.ERR,
}


def mode(number: int) -> Mode:
    """Return the mode of a replica; in one that nobody knows yet, it cannot be used."""
    return _MODES.get(number, Mode.ERR)  # type: ignore[call-overload,no-any-return]


def read(kind: type[T], message: Any) -> T:
    """Return a message as a value whose fields have the same names."""
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    values = {field.name: getattr(message, field.name) for field in fields}
    scalars = (str, int, bool)
    return kind(**{name: each if isinstance(each, scalars) else tuple(each) for name, each in values.items()})


def info(told: replica_pb2.Replica) -> ReplicaInfo:
    """Return what a replica tells of itself."""
    return ReplicaInfo(
        rebuilding=told.rebuilding,
        state=told.state,
        size=int(told.size) if told.size.isascii() and told.size.isdecimal() else 0,
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
