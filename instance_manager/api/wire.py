"""Conversion between protobuf messages and values of the core."""

from collections.abc import Callable

from instance_manager.app.supervisor import Supervisor
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

    def __init__(self, serialize: Callable[[Change], bytes]) -> None:
        self._serialize = serialize
        self._known: dict[int, bytes] = {}

    def get(self, change: Change) -> bytes:
        """Return the serialized message for a change."""
        known = self._known.get(change.revision)
        if known is None:
            known = self._known[change.revision] = self._serialize(change)
            if len(self._known) > _CHANGES_KEPT:
                del self._known[next(iter(self._known))]
        return known


class SerializedProcesses:
    """Serializes each process once after each of its changes."""

    def __init__(self, supervisor: Supervisor, serialize: Callable[[Process], bytes]) -> None:
        self._supervisor = supervisor
        self._serialize = serialize
        self._known: dict[str, bytes] = {}
        supervisor.changed.observe(lambda name: self._known.pop(name, None))

    def get(self, name: str) -> bytes:
        """Return the serialized message for a process.

        Raises:
            NotFoundError: if no process has this name.
        """
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._serialize(self._supervisor.get(name))
        return known


_FEW = 1024
"""Number of changed names that a list remembers before it drops those of processes that are gone."""


class SerializedList:
    """A serialized list of all processes: after a change, only the changed process is serialized again."""

    def __init__(self, supervisor: Supervisor, serialize: Callable[[Process], bytes]) -> None:
        """Start with all processes; `serialize` returns a list message with only one process."""
        self._supervisor = supervisor
        self._serialize = serialize
        self._changed: set[str] = set(supervisor.processes())
        self._entries: dict[str, bytes] = {}
        self._whole: bytes | None = b""
        self._most = _FEW
        supervisor.changed.observe(self._note)

    def get(self) -> bytes:
        """Return the list."""
        for name in tuple(self._changed):
            self._whole = None
            process = self._supervisor.find(name)
            if process is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = self._serialize(process)
            # Not before: what cannot be serialized fails every list, rather than to be missing in them.
            self._changed.discard(name)
        if self._whole is None:
            # Concatenated list messages parse as one message with all their entries.
            self._whole = b"".join(self._entries.values())
        return self._whole

    def _note(self, name: str) -> None:
        """Remember that a process has changed, in bounded memory even if nobody asks for the list."""
        self._changed.add(name)
        if len(self._changed) > self._most:
            listed = self._supervisor.processes().keys() | self._entries.keys()
            self._changed &= listed
            self._most = max(_FEW, 2 * len(listed))
