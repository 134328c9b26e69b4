"""An instance manager before 1.9: a real one, behind a server that hides UUIDs and knows processes only."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb


def _stripped(process: pb.ProcessResponse) -> pb.ProcessResponse:
    process.status.ClearField("uuid")
    return process


class OldInstanceManager:
    """Serves ProcessManagerService as it was before there were UUIDs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.deletes: list[str] = []
        """Name in every order to delete, the only thing that an order had."""

    def handler(self) -> grpc.GenericRpcHandler:
        def unary(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method, request.FromString, lambda answer: answer.SerializeToString()
            )

        return grpc.method_handlers_generic_handler(
            "ProcessManagerService",
            {
                "ProcessDelete": unary(self._delete, pb.ProcessDeleteRequest),
                "ProcessGet": unary(self._get, pb.ProcessGetRequest),
                "ProcessList": unary(self._list, pb.ProcessListRequest),
                "ProcessWatch": grpc.unary_stream_rpc_method_handler(
                    self._watch, empty_pb2.Empty.FromString, pb.ProcessResponse.SerializeToString
                ),
            },
        )

    async def _delete(self, request: pb.ProcessDeleteRequest, _: Any) -> pb.ProcessResponse:
        self.deletes.append(request.name)
        return _stripped(await self._client.process_delete(request.name))

    async def _get(self, request: pb.ProcessGetRequest, context: Any) -> pb.ProcessResponse:
        try:
            return _stripped(await self._client.process_get(request.name))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
            raise

    async def _list(self, _: pb.ProcessListRequest, __: Any) -> pb.ProcessListResponse:
        processes = await self._client.process_list()
        return pb.ProcessListResponse(
            processes={name: _stripped(process) for name, process in processes.items()}
        )

    async def _watch(self, _: empty_pb2.Empty, __: Any) -> AsyncIterator[pb.ProcessResponse]:
        # As a server in Go, it sends nothing before the first change.
        stream = await self._client.process_watch().accepted()
        try:
            async for change in stream:
                yield _stripped(change)
        finally:
            stream.cancel()


@contextlib.asynccontextmanager
async def without_uuids(url: str, behind: str) -> AsyncIterator[OldInstanceManager]:
    """Serve what a daemon has, without UUIDs, for the time of the block.

    Args:
        url: unix://PATH to serve on.
        behind: URL of the daemon.
    """
    async with Client(behind) as client:
        old = OldInstanceManager(client)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([old.handler()])
        server.add_insecure_port(url)
        await server.start()
        try:
            yield old
        finally:
            await server.stop(None)
