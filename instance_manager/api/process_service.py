"""ProcessManagerService: processes by name, as Longhorn's clients know it."""

import asyncio
from contextlib import aclosing
from typing import Any

import grpc

from instance_manager.api.methods import CallObserver, Context, generic_handler
from instance_manager.api.version import version_response
from instance_manager.api.wire import SerializedChanges, SerializedList, process_to_wire, spec_from_wire
from instance_manager.app.events import LaggedError
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import validate_name
from instance_manager.pb.imrpc import imrpc_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["ProcessManagerService"]

FOLLOW_METADATA = "instance-manager-follow"
"""With the value `true`, ProcessLog goes on until the process is deleted."""
TAIL_METADATA = "instance-manager-tail"
"""ProcessLog begins with the last so many lines."""


class ProcessService:
    """The methods of ProcessManagerService."""

    def __init__(self, supervisor: Supervisor, replacer: Replacer) -> None:
        self._supervisor = supervisor
        self._replacer = replacer
        self._changes = SerializedChanges()
        self._list = SerializedList(supervisor.events)

    def handler(self, calls: CallObserver | None = None) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server; `calls` is told about every call."""
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
            calls,
        )

    def create(self, request: pb.ProcessCreateRequest) -> pb.ProcessResponse:
        """Start a process and answer at once."""
        return process_to_wire(self._supervisor.create(spec_from_wire(request)))

    def delete(self, request: pb.ProcessDeleteRequest) -> pb.ProcessResponse:
        """Begin to end a process and answer at once with deleted=true."""
        validate_name(request.name)
        return process_to_wire(self._supervisor.delete(request.name, request.uuid), deleted=True)

    def get(self, request: pb.ProcessGetRequest) -> pb.ProcessResponse:
        """Tell one process."""
        validate_name(request.name)
        return process_to_wire(self._supervisor.get(request.name))

    def list(self, _: pb.ProcessListRequest) -> bytes:
        """Tell every process."""
        return self._list.get(self._supervisor.processes())

    async def replace(self, request: pb.ProcessReplaceRequest) -> pb.ProcessResponse:
        """Put a process with another binary in the place of a running one."""
        return process_to_wire(
            await self._replacer.replace(spec_from_wire(request), request.terminate_signal)
        )

    def version(self, _: Any) -> pb.VersionResponse:
        """Tell the versions."""
        return version_response()

    async def log(self, request: pb.LogRequest, context: Context) -> None:
        """Stream a log line by line; metadata asks for the end of it, or to go on."""
        validate_name(request.name)
        metadata = dict(context.invocation_metadata() or ())
        follow = metadata.get(FOLLOW_METADATA) == "true"
        lines = self._supervisor.logs.read(
            request.name, follow=follow, tail=_tail(str(metadata.get(TAIL_METADATA, "")))
        )
        async with aclosing(lines):
            async for line in lines:
                await context.write(pb.LogResponse(line=line).SerializeToString())

    async def watch(self, _: Any, context: Context) -> None:
        """Stream every change from now on; one who does not read is cut off with RESOURCE_EXHAUSTED."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler always runs in one
        with self._supervisor.events.subscribe() as changes:
            # A watcher that does not read leaves this task stuck in a write.
            changes.on_lag = task.cancel
            # Headers tell the client that from here on it misses nothing.
            await context.send_initial_metadata(())
            try:
                async for change in changes:
                    await context.write(self._changes.get(change))
            except (LaggedError, asyncio.CancelledError):
                if not changes.lagged:
                    raise
                task.uncancel()
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "too many changes were left unread: watch again, then list to be in step",
                )


def _tail(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidArgumentError(f"cannot use {TAIL_METADATA} {text!r}: it is a number of lines")
    return int(text)
