"""A service that is none of the daemon's own, as one that comes later would be written."""

import asyncio
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto

from instance_manager.api.service import Context, Service, rpc
from instance_manager.core.errors import NotFoundError
from instance_manager.pb.imrpc import imrpc_pb2 as pb


def _described() -> Any:
    request, response = (
        f".{kind.DESCRIPTOR.full_name}" for kind in (pb.ProcessDeleteRequest, pb.ProcessResponse)
    )
    methods = [
        MethodDescriptorProto(
            name=name, input_type=request, output_type=response, server_streaming=name == "Follow"
        )
        for name in ("Rename", "Look", "Follow")
    ]
    file = FileDescriptorProto(
        name="tests/small.proto",
        package="tests",
        dependency=[pb.DESCRIPTOR.name],
        service=[ServiceDescriptorProto(name="Small", method=methods)],
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("tests.Small")


class SmallService(Service):
    """One method of each kind."""

    descriptor = _described()

    def __init__(self) -> None:
        self.renamed: list[str] = []
        self.answer = b""
        """The answer when a long one is asked for."""
        self.messages = [pb.ProcessResponse().SerializeToString()]
        """What is streamed."""

    @rpc("Rename", changes=True)
    def rename(self, request: pb.ProcessDeleteRequest) -> pb.ProcessResponse:
        """Change something."""
        self.renamed.append(request.name)
        return pb.ProcessResponse(status=pb.ProcessStatus(uuid="u-of-answer"))

    @rpc("Look")
    async def look(self, request: pb.ProcessDeleteRequest) -> bytes:
        """Fail in the way that the name says."""
        match request.name:
            case "missing":
                raise NotFoundError("nothing has this name")
            case "long":
                raise NotFoundError("cannot find " + "\u8a9e" * 5000)
            case "big":
                return self.answer
            case "defect":
                raise KeyError("a defect")
        return pb.ProcessResponse(deleted=True).SerializeToString()

    @rpc("Follow")
    async def follow(self, _: pb.ProcessDeleteRequest, context: Context) -> None:
        """Stream the messages, and nothing more until the caller goes away."""
        for message in self.messages:
            await context.write(message)
        await asyncio.Event().wait()
