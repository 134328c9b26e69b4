"""Conversion between the wire's messages and the core's values."""

from instance_manager.app.events import EventLog
from instance_manager.core.change import Change
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.process import Process
from instance_manager.core.spec import ProcessSpec
from instance_manager.pb.imrpc import imrpc_pb2 as pb

_CHANGES_KEPT = 1024


def spec_from_wire(request: pb.ProcessCreateRequest | pb.ProcessReplaceRequest) -> ProcessSpec:
    """Return the spec of a request.

    Raises:
        InvalidArgumentError: if it has none.
    """
    if not request.HasField("spec"):
        raise InvalidArgumentError("cannot start a process without a spec: set spec.name and spec.binary")
    spec = request.spec
    return ProcessSpec(
        name=spec.name,
        binary=spec.binary,
        args=tuple(spec.args),
        port_count=spec.port_count,
        port_args=tuple(spec.port_args),
    )


def process_to_wire(process: Process, *, deleted: bool = False) -> pb.ProcessResponse:
    """Return a process as clients see it."""
    spec, ports = process.spec, process.ports
    return pb.ProcessResponse(
        spec=pb.ProcessSpec(
            name=spec.name,
            binary=spec.binary,
            args=spec.args,
            port_count=spec.port_count,
            port_args=spec.port_args,
        ),
        status=pb.ProcessStatus(
            state=process.state,
            error_msg=process.error_msg,
            port_start=ports.start if ports else 0,
            port_end=ports.end if ports else 0,
            conditions=process.conditions,
            uuid=process.uuid,
        ),
        deleted=deleted,
    )


class SerializedChanges:
    """Serializes each change once for all watchers."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def get(self, change: Change) -> bytes:
        """Return the message that tells a change."""
        known = self._known.get(change.revision)
        if known is None:
            known = process_to_wire(change.process, deleted=change.deleted).SerializeToString()
            self._known[change.revision] = known
            if len(self._known) > _CHANGES_KEPT:
                del self._known[next(iter(self._known))]
        return known


class SerializedList:
    """Serializes a process once per change of it, and the list once per change of anything."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._entries: dict[str, tuple[Process, bytes]] = {}
        self._revision = -1
        self._whole = b""

    def get(self, processes: dict[str, Process]) -> bytes:
        """Return the ProcessListResponse; every difference in `processes` has been published as a change."""
        if self._revision != self._events.revision:
            self._entries = {name: self._entry(name, process) for name, process in processes.items()}
            # Serialized messages that stand one behind the other parse as one that holds all their entries.
            self._whole = b"".join(entry[1] for entry in self._entries.values())
            self._revision = self._events.revision
        return self._whole

    def _entry(self, name: str, process: Process) -> tuple[Process, bytes]:
        known = self._entries.get(name)
        if known is not None and known[0] is process:
            return known
        single = pb.ProcessListResponse(processes={name: process_to_wire(process)})
        return process, single.SerializeToString()
