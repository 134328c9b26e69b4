"""A client that calls any service by the names of its methods, and a server for one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.server import GrpcServer
from instance_manager.api.service import Service
from instance_manager.app.audit import AuditTrail
from instance_manager.core.addresses import Address
from tests.support.patience import patience

WITHIN = patience(30.0)


class ServiceClient:
    """Calls a service."""

    def __init__(self, channel: grpc.aio.Channel, service: ServiceDescriptor) -> None:
        self._channel = channel
        self._service = service

    def call(self, method: str, request: Any) -> Any:
        """Begin a call with a message, or with JSON; await it, or iterate over it, for what is answered."""
        descriptor = self._service.methods_by_name[method]
        kind = GetMessageClass(descriptor.input_type)
        make: Any = self._channel.unary_stream if descriptor.server_streaming else self._channel.unary_unary
        call = make(
            f"/{self._service.full_name}/{method}",
            request_serializer=kind.SerializeToString,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        if isinstance(request, dict):
            request = json_format.ParseDict(request, kind())
        return call(request, timeout=WITHIN)

    async def error(self, method: str, request: Any) -> tuple[str, str]:
        """Return name of the code and message with which a call fails."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.call(method, request)
        return error.value.code().name, error.value.details() or ""


@asynccontextmanager
async def served(service: Service, trail: AuditTrail) -> AsyncIterator[tuple[grpc.aio.Channel, int]]:
    """Serve a service on a port of this process; return a channel to it, and the port."""
    server = GrpcServer([Listener(Offset.PROCESS, (service,))], InterceptorChain(trail, RpcMetrics()))
    port = server.bind(Address("127.0.0.1", 0))[0].port
    await server.start()
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel, port
    await server.stop(0)
