"""Conversion between EventService's messages and the core's values."""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from instance_manager.app.supervised_process import Waiting
from instance_manager.core.change import Change
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.instance import InstanceType, type_of_process
from instance_manager.core.process import ExitStatus, Process
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb

_TYPES = frozenset({InstanceType.ENGINE, InstanceType.REPLICA})


@dataclass(frozen=True, slots=True)
class Filter:
    """Which instances a caller is interested in."""

    names: frozenset[str]
    prefix: str
    types: frozenset[str]

    def matches(self, process: Process) -> bool:
        """Return whether a process passes the filter."""
        return (
            process.name.startswith(self.prefix)
            and (not self.names or process.name in self.names)
            and (not self.types or _type(process) in self.types)
        )


def filter_from_wire(message: pb.Filter) -> Filter:
    """Return the filter of a request.

    Raises:
        InvalidArgumentError: if it names an unknown type.
    """
    if unknown := sorted(set(message.types) - _TYPES):
        raise InvalidArgumentError(
            f"cannot filter by the type {unknown[0]!r}: there are {' and '.join(sorted(_TYPES))}"
        )
    return Filter(frozenset(message.names), message.name_prefix, frozenset(message.types))


def snapshot_to_wire(process: Process, waiting: Waiting | None = None) -> pb.Instance:
    """Return a process as the instance it is, and for what it is waited for."""
    ports = process.ports
    return pb.Instance(
        name=process.name,
        type=_type(process),
        data_engine="v1",
        uuid=process.uuid,
        state=process.state,
        error_msg=process.error_msg,
        port_start=ports.start if ports else 0,
        port_end=ports.end if ports else 0,
        conditions=process.conditions,
        exit=_exit(process.exit),
        pid=process.identity.pid if process.identity else 0,
        binary=process.spec.binary,
        waiting_since=_timestamp(waiting.since) if waiting else None,
        waiting_for=waiting.purpose if waiting else "",
    )


def event_to_wire(change: Change) -> pb.Event:
    """Return a change as an event."""
    return pb.Event(
        revision=change.revision,
        time=_timestamp(change.time),
        instance=snapshot_to_wire(change.process),
        previous_state=change.previous or "",
        deleted=change.deleted,
        reason=change.reason,
        successor_uuid=change.successor,
    )


def serialize_event(change: Change) -> bytes:
    """Return the serialized WatchResponse for a change."""
    return pb.WatchResponse(event=event_to_wire(change)).SerializeToString()


def serialize_history(changes: Iterable[Change]) -> bytes:
    """Return a serialized HistoryResponse with only these events."""
    return pb.HistoryResponse(events=map(event_to_wire, changes)).SerializeToString()


def _timestamp(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromNanoseconds(int(seconds * 1e9))
    return time


def _type(process: Process) -> str:
    return type_of_process(process.name, process.spec.instance_type)


def _exit(status: ExitStatus | None) -> pb.Exit | None:
    if status is None:
        return None
    return pb.Exit(status=status.code, signal=status.signal, unknown=not status.known)
