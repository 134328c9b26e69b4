"""ProcessManagerService: processes by name, as Longhorn's clients expect it."""

from typing import Any

from instance_manager.api.logs import stream_log
from instance_manager.api.serialized import SerializedChanges, SerializedList, SerializedProcesses
from instance_manager.api.service import Context, Service, rpc
from instance_manager.api.version import manager_versions
from instance_manager.api.watching import accept, watching
from instance_manager.api.wire import (
    process_spec_from_wire,
    process_to_wire,
)
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.change import Change
from instance_manager.core.names import validate_name
from instance_manager.core.process import Process
from instance_manager.pb.imrpc import imrpc_pb2 as pb


class ProcessService(Service):
    """The methods of ProcessManagerService."""

    descriptor = pb.DESCRIPTOR.services_by_name["ProcessManagerService"]

    def __init__(self, supervisor: Supervisor, replacer: Replacer) -> None:
        self._supervisor = supervisor
        self._replacer = replacer
        self._changes = SerializedChanges(_serialize_change)
        self._list = SerializedList(supervisor, _serialize_entry)
        self._each = SerializedProcesses(supervisor, _serialize_one)

    @rpc("ProcessCreate", changes=True)
    def create(self, request: pb.ProcessCreateRequest) -> pb.ProcessResponse:
        """Start a process and return at once."""
        return process_to_wire(self._supervisor.create(process_spec_from_wire(request)))

    @rpc("ProcessDelete", changes=True)
    def delete(self, request: pb.ProcessDeleteRequest) -> pb.ProcessResponse:
        """Begin to stop a process and return at once with deleted=true."""
        validate_name(request.name)
        return process_to_wire(self._supervisor.delete(request.name, request.uuid), deleted=True)

    @rpc("ProcessGet")
    def get(self, request: pb.ProcessGetRequest) -> bytes:
        """Return one process."""
        validate_name(request.name)
        return self._each.get(request.name)

    @rpc("ProcessList")
    def list(self, _: pb.ProcessListRequest) -> bytes:
        """Return all processes."""
        return self._list.get()

    @rpc("ProcessReplace", changes=True, waits=True)
    async def replace(self, request: pb.ProcessReplaceRequest, within: float | None) -> pb.ProcessResponse:
        """Replace a running process by one with another binary."""
        spec = process_spec_from_wire(request)
        return process_to_wire(await self._replacer.replace(spec, request.terminate_signal, within))

    @rpc("VersionGet")
    def version(self, _: Any) -> pb.VersionResponse:
        """Return the versions."""
        return manager_versions()

    @rpc("ProcessLog")
    async def log(self, request: pb.LogRequest, context: Context) -> None:
        """Stream a log line by line."""
        await stream_log(self._supervisor.logs, request.name, context)

    @rpc("ProcessWatch")
    async def watch(self, _: Any, context: Context) -> None:
        """Stream every change of a listed process from now on, and the one that is listed instead of another.

        A watcher by name would take what happens to one of two for what happens to the name.
        """
        async with watching(
            self._supervisor.events, context, "watch again, then list to be in step"
        ) as changes:
            await accept(context, changes)
            async for change in changes:
                if change.listed:
                    await context.write(self._changes.get(change))


def _serialize_change(change: Change) -> bytes:
    return process_to_wire(change.process, deleted=change.deleted).SerializeToString()


def _serialize_one(process: Process) -> bytes:
    return process_to_wire(process, deleted=process.deleting).SerializeToString()


def _serialize_entry(process: Process) -> bytes:
    response = process_to_wire(process, deleted=process.deleting)
    return pb.ProcessListResponse(processes={process.name: response}).SerializeToString()
