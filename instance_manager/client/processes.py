"""ProcessManagerService: the processes of the v1 data engine."""

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.client.channel import Channel, Response, Stream
from instance_manager.pb.imrpc import imrpc_pb2 as pb

REPLACE_TIMEOUT = 60.0
"""Timeout in seconds of a replace, which waits until the new process is running."""


class ProcessCalls(Channel):
    """The methods of ProcessManagerService."""

    async def process_create(self, spec: pb.ProcessSpec) -> pb.ProcessResponse:
        """Start a process and return it at once, in state `starting`, or `error` if it cannot be executed."""
        request = pb.ProcessCreateRequest(spec=spec)
        return await self._process("ProcessCreate", request, pb.ProcessResponse)

    async def process_delete(self, name: str, uuid: str = "") -> pb.ProcessResponse:
        """Begin to stop a process; with a UUID, only if the process with this name has it."""
        request = pb.ProcessDeleteRequest(name=name, uuid=uuid)
        return await self._process("ProcessDelete", request, pb.ProcessResponse)

    async def process_get(self, name: str) -> pb.ProcessResponse:
        """Return one process."""
        return await self._process("ProcessGet", pb.ProcessGetRequest(name=name), pb.ProcessResponse)

    async def process_list(self) -> dict[str, pb.ProcessResponse]:
        """Return every process by name."""
        answer = await self._process("ProcessList", pb.ProcessListRequest(), pb.ProcessListResponse)
        return dict(answer.processes)

    async def process_replace(
        self, spec: pb.ProcessSpec, terminate_signal: str = "SIGHUP"
    ) -> pb.ProcessResponse:
        """Replace a running process by one with another binary; returns when that is running."""
        request = pb.ProcessReplaceRequest(spec=spec, terminate_signal=terminate_signal)
        return await self._process("ProcessReplace", request, pb.ProcessResponse, within=REPLACE_TIMEOUT)

    def process_watch(self) -> Stream[pb.ProcessResponse]:
        """Stream every change from the moment `Stream.accepted` returns."""
        return self._stream("ProcessManagerService/ProcessWatch", empty_pb2.Empty(), pb.ProcessResponse)

    def process_log(self, name: str, *, follow: bool = False, tail: int | None = None) -> AsyncIterator[str]:
        """Stream the lines of a process's log.

        Args:
            name: name of the process, which may have been deleted.
            follow: whether to continue until the process is deleted.
            tail: start with the last `tail` lines; None for all.
        """
        request = pb.LogRequest(name=name)
        return self._log("ProcessManagerService/ProcessLog", request, follow=follow, tail=tail)

    async def version(self) -> pb.VersionResponse:
        """Return the versions of the daemon and of the interfaces it speaks."""
        return await self._process("VersionGet", empty_pb2.Empty(), pb.VersionResponse)

    async def _process(
        self, method: str, request: Message, kind: type[Response], *, within: float | None = None
    ) -> Response:
        return await self._unary(f"ProcessManagerService/{method}", request, kind, within=within)
