"""An InstanceService that writes down what it is asked, and answers and pings as a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.pb.imrpc import imrpc_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from instance_manager.pb.imrpc.common_pb2 import DATA_ENGINE_V2

SERVICE = pb.DESCRIPTOR.services_by_name["InstanceService"]


def instance(
    name: str, state: str, uuid: str = "u1", kind: str = "replica", **spec: Any
) -> pb.InstanceResponse:
    """Return an instance of v2."""
    return pb.InstanceResponse(
        spec=pb.InstanceSpec(name=name, type=kind, data_engine=DATA_ENGINE_V2, **spec),
        status=pb.InstanceStatus(state=state, uuid=uuid),
    )


class FakeInstances:
    """Every method of InstanceService."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Each call but lists: the method and what it was asked, as far as it is not the default."""
        self.listed: dict[str, pb.InstanceResponse] = {}
        self.metadata: dict[str, str] = {}
        """Of the last InstanceLog."""
        self._watchers: list[asyncio.Queue[bool]] = []

    def ping(self, *, last: bool = False) -> None:
        """Tell all who watch that something has changed, or that this is all."""
        for watcher in self._watchers:
            watcher.put_nowait(not last)

    @property
    def handler(self) -> grpc.GenericRpcHandler:
        """What a server serves."""
        streams: dict[str, Callable[..., AsyncIterator[Message]]] = {
            "InstanceLog": self._log,
            "InstanceWatch": self._watch,
        }
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in SERVICE.methods:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            codec: Any = (request.FromString, response.SerializeToString)
            if method.name in streams:
                methods[method.name] = grpc.unary_stream_rpc_method_handler(streams[method.name], *codec)
            else:
                answer = self._answer(method.name, response)
                methods[method.name] = grpc.unary_unary_rpc_method_handler(answer, *codec)
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    def _answer(self, method: str, kind: type[Message]) -> Callable[[Message, Any], Any]:
        async def answer(request: Message, _: Any) -> Message:
            if method == "InstanceList":
                return pb.InstanceListResponse(instances=self.listed)
            self.asked.append((method, MessageToDict(request, preserving_proto_field_name=True)))
            match method:
                case "LogGetLevel":
                    return pb.LogGetLevelResponse(level="warning")
                case "LogGetFlags":
                    return pb.LogGetFlagsResponse(flags="bdev,nvmf")
            return instance("i1", "running") if kind is pb.InstanceResponse else kind()

        return answer

    async def _log(self, request: Message, context: Any) -> AsyncIterator[Message]:
        self.asked.append(("InstanceLog", MessageToDict(request, preserving_proto_field_name=True)))
        self.metadata = dict(context.invocation_metadata())
        yield imrpc_pb2.LogResponse(line="a line")

    async def _watch(self, _: Message, context: Any) -> AsyncIterator[Message]:
        mine: asyncio.Queue[bool] = asyncio.Queue()
        self._watchers.append(mine)
        await context.send_initial_metadata(())
        while await mine.get():
            yield empty_pb2.Empty()
