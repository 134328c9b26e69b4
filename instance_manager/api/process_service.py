"""ProcessManagerService: processes by name, as Longhorn's clients know it."""

from typing import Any

import grpc

from instance_manager.api.logs import stream_log
from instance_manager.api.methods import Context, generic_handler
from instance_manager.api.version import version_response
from instance_manager.api.watching import watching
from instance_manager.api.wire import (
    SerializedChanges,
    SerializedList,
    SerializedProcesses,
    process_to_wire,
    spec_from_wire,
)
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.change import Change
from instance_manager.core.names import validate_name
from instance_manager.core.process import Process
from instance_manager.pb.imrpc import imrpc_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["ProcessManagerService"]


class ProcessService:
    """The methods of ProcessManagerService."""

    def __init__(self, supervisor: Supervisor, replacer: Replacer) -> None:
        self._supervisor = supervisor
        self._replacer = replacer
        self._changes = SerializedChanges(_told)
        self._list = SerializedList(supervisor, _in_list)
        self._each = SerializedProcesses(supervisor, _alone)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server."""
        return generic_handler(
            SERVICE,
            {
                "ProcessCreate": self.create,
                "ProcessDelete": self.delete,
                "ProcessGet": self.get,
                "ProcessList": self.list,
                "ProcessLog": self.log,
                "ProcessReplace": self.replace,
                "ProcessWatch": self.watch,
                "VersionGet": self.version,
            },
        )

    def create(self, request: pb.ProcessCreateRequest) -> pb.ProcessResponse:
        """Start a process and answer at once."""
        return process_to_wire(self._supervisor.create(spec_from_wire(request)))

    def delete(self, request: pb.ProcessDeleteRequest) -> pb.ProcessResponse:
        """Begin to end a process and answer at once with deleted=true."""
        validate_name(request.name)
        return process_to_wire(self._supervisor.delete(request.name, request.uuid), deleted=True)

    def get(self, request: pb.ProcessGetRequest) -> bytes:
        """Tell one process."""
        validate_name(request.name)
        return self._each.get(request.name)

    def list(self, _: pb.ProcessListRequest) -> bytes:
        """Tell every process."""
        return self._list.get()

    async def replace(self, request: pb.ProcessReplaceRequest) -> pb.ProcessResponse:
        """Put a process with another binary in the place of a running one."""
        return process_to_wire(
            await self._replacer.replace(spec_from_wire(request), request.terminate_signal)
        )

    def version(self, _: Any) -> pb.VersionResponse:
        """Tell the versions."""
        return version_response()

    async def log(self, request: pb.LogRequest, context: Context) -> None:
        """Stream a log line by line."""
        await stream_log(self._supervisor.logs, request.name, context)

    async def watch(self, _: Any, context: Context) -> None:
        """Stream every change from now on."""
        async with watching(
            self._supervisor.events, context, "watch again, then list to be in step"
        ) as changes:
            # Headers tell the client that from here on it misses nothing.
            await context.send_initial_metadata(())
            async for change in changes:
                await context.write(self._changes.get(change))


def _told(change: Change) -> bytes:
    return process_to_wire(change.process, deleted=change.deleted).SerializeToString()


def _alone(process: Process) -> bytes:
    return process_to_wire(process, deleted=process.deleting).SerializeToString()


def _in_list(process: Process) -> bytes:
    told = process_to_wire(process, deleted=process.deleting)
    return pb.ProcessListResponse(processes={process.name: told}).SerializeToString()
