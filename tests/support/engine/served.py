"""The proxy, served on a port of this process, and its client."""

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from instance_manager.adapters.engine import Channels, Timeouts, engines_over
from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.proxy import ProxyService
from instance_manager.api.server import GrpcServer
from instance_manager.app.audit import AuditTrail
from instance_manager.app.engine import Completion, NodeMounts
from instance_manager.app.engine.backups import BackupStore
from instance_manager.core.addresses import Address
from instance_manager.core.backups import BackupVolume
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.platform.background import Background
from tests.support.engine.process import EngineProcess
from tests.support.patience import patience

WITHIN = patience(30.0)
SERVICE = pb.DESCRIPTOR.services_by_name["ProxyEngineService"]


class ProxyClient:
    """Calls ProxyEngineService by the names of its methods."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def call(self, method: str, request: Any) -> Any:
        """Begin a call with a message, or with JSON; await it for the answer."""
        descriptor = SERVICE.methods_by_name[method]
        kind = GetMessageClass(descriptor.input_type)
        unary: Any = self._channel.unary_unary(
            f"/{SERVICE.full_name}/{method}",
            request_serializer=kind.SerializeToString,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        if isinstance(request, dict):
            request = json_format.ParseDict(request, kind())
        return unary(request, timeout=WITHIN)

    async def error(self, method: str, request: Any) -> tuple[str, str]:
        """Return name of the code and message with which a call fails."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.call(method, request)
        return error.value.code().name, error.value.details() or ""


class NoMounts:
    """A node where nothing is mounted."""

    async def remount_writable(self, volume: str) -> None:
        """Do nothing."""

    async def unmount_backup_targets(self) -> None:
        """Do nothing."""


@dataclass
class Backups:
    """A store with these backups, by URL; an URL that it does not know has the text of its error."""

    known: dict[str, BackupVolume | str] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Engine, URL and variables of each look."""

    async def volume(self, engine: str, url: str, variables: Mapping[str, str]) -> BackupVolume:
        """Return the volume that a backup is of."""
        self.asked.append((engine, url, dict(variables)))
        found = self.known.get(url, f"cannot find {url} in backupstore")
        if isinstance(found, str):
            raise UpstreamError("UNKNOWN", found)
        return found


@dataclass
class ServedProxy:
    """The proxy and what it consists of."""

    client: ProxyClient
    channels: Channels
    trail: AuditTrail
    port: int


@asynccontextmanager
async def served_proxy(
    timeouts: Timeouts | None = None,
    idle_seconds: float = 60.0,
    mounts: NodeMounts | None = None,
    store: BackupStore | None = None,
) -> AsyncIterator[ServedProxy]:
    """Serve the proxy and connect to it; without `mounts`, the node has none that matter."""
    channels, completion = Channels(Background(), idle_seconds), Completion()
    engines = engines_over(channels, timeouts)
    service = ProxyService(engines, completion, mounts or NoMounts(), store or Backups())
    trail = AuditTrail(lambda: 1.0)
    server = GrpcServer([Listener(Offset.PROXY, (service,))], InterceptorChain(trail, RpcMetrics()))
    port = server.bind(Address("127.0.0.1", 0))[0].port
    await server.start()
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield ServedProxy(ProxyClient(channel), channels, trail, port)
    await server.stop(0)
    await completion.close()
    await channels.close()


def of(engine: EngineProcess, **fields: Any) -> pb.ProxyEngineRequest:
    """Return the request that means an engine."""
    names = {"address": engine.address, "volume_name": engine.volume, "engine_name": engine.name}
    return pb.ProxyEngineRequest(**{**names, **fields})


@contextmanager
def nobody() -> Iterator[str]:
    """Return an address on which nobody listens during the block, nor two ports above."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            yield f"127.0.0.1:{port}"
            return
