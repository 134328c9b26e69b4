"""A daemon that does what a test says, for what a real one does only by chance."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from instance_manager.pb.imrpc import imrpc_pb2 as pb

Told = pb.ProcessResponse | grpc.StatusCode | None


def process(state: str, uuid: str = "u1", *, name: str = "r1", error_msg: str = "") -> pb.ProcessResponse:
    """Return a process, or with the state `deleted` the last change of one."""
    deleted = state == "deleted"
    status = pb.ProcessStatus(state="stopped" if deleted else state, uuid=uuid, error_msg=error_msg)
    return pb.ProcessResponse(spec=pb.ProcessSpec(name=name), status=status, deleted=deleted)


class FakeDaemon:
    """Answers what a test needs; it sets what is listed and what those who watch are told."""

    def __init__(self, url: str, *services: grpc.GenericRpcHandler) -> None:
        """With more services than ProcessManagerService and health."""
        self.url = url
        self._services = services
        self.calls: list[str] = []
        self.listed: pb.ProcessResponse | None = None
        self.list: list[pb.ProcessResponse] = []
        self.before_answering: list[Told] = []
        """What to tell all who watch while a ProcessGet is under way."""
        self.asked = asyncio.Semaphore(0)
        """Released by each ProcessGet that has been answered."""
        self.never_answers = False
        self.like_go = False
        """A call is taken without a word until there is a first message."""
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        """What every ProcessList is answered with."""
        self.health = "SERVING"
        self._watchers: list[asyncio.Queue[Told]] = []
        self._server: grpc.aio.Server

    def tell(self, *told: Told) -> None:
        """Tell all who watch; a status breaks the stream with it, None ends it in good order."""
        for watcher in self._watchers:
            for each in told:
                watcher.put_nowait(each)

    async def start(self) -> None:
        """Serve, again after a `stop`."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ProcessGet": grpc.unary_unary_rpc_method_handler(
                self._get, pb.ProcessGetRequest.FromString, pb.ProcessResponse.SerializeToString
            ),
            "ProcessList": grpc.unary_unary_rpc_method_handler(
                self._list, response_serializer=pb.ProcessListResponse.SerializeToString
            ),
            "ProcessWatch": grpc.unary_stream_rpc_method_handler(
                self._watch, response_serializer=pb.ProcessResponse.SerializeToString
            ),
        }
        check: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self._check, response_serializer=health_pb2.HealthCheckResponse.SerializeToString
        )
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler("ProcessManagerService", handlers),
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),
                *self._services,
            ]
        )
        self._server.add_insecure_port(self.url)
        await self._server.start()

    async def stop(self) -> None:
        """Cut every connection off."""
        await self._server.stop(None)

    async def _check(self, *_: Any) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(
            status=health_pb2.HealthCheckResponse.ServingStatus.Value(self.health)
        )

    async def _get(self, request: pb.ProcessGetRequest, context: Any) -> pb.ProcessResponse:
        self.calls.append(f"get {request.name}")
        self.tell(*self.before_answering)
        if self.never_answers:
            await asyncio.Event().wait()
        self.asked.release()
        if self.listed is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "cannot find it")
        assert self.listed is not None
        return self.listed

    async def _list(self, _: bytes, context: Any) -> pb.ProcessListResponse:
        if self.refusal is not None:
            await context.abort(*self.refusal)
        return pb.ProcessListResponse(processes={each.spec.name: each for each in self.list})

    async def _watch(self, _: bytes, context: Any) -> AsyncIterator[pb.ProcessResponse]:
        self.calls.append("watch")
        mine: asyncio.Queue[Told] = asyncio.Queue()
        self._watchers.append(mine)
        if not self.like_go:
            await context.send_initial_metadata(())
        while (told := await mine.get()) is not None:
            if isinstance(told, grpc.StatusCode):
                await context.abort(told, "as the test says")
            else:
                yield told


@contextlib.asynccontextmanager
async def fake_daemon(url: str, *services: grpc.GenericRpcHandler) -> AsyncIterator[FakeDaemon]:
    """Run one for the time of the block."""
    fake = FakeDaemon(url, *services)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
