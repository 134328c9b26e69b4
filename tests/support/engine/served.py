"""The proxy, served on a port of this process, and its client."""

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from instance_manager.adapters.engine import Channels, Timeouts, engines_over, spdk_engines_over
from instance_manager.api.proxy import ProxyService, ProxyV2
from instance_manager.app.audit import AuditTrail
from instance_manager.app.engine import Completion, NodeMounts
from instance_manager.app.engine.backups import BackupStore
from instance_manager.core.backups import BackupVolume
from instance_manager.core.errors import UpstreamError
from instance_manager.core.spdk import port_elsewhere
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.platform.background import Background
from instance_manager.platform.channels import Certificates
from tests.support.engine.process import EngineProcess
from tests.support.service_client import ServiceClient, served

SERVICE = pb.DESCRIPTOR.services_by_name["ProxyEngineService"]


class ProxyClient(ServiceClient):
    """Calls ProxyEngineService by the names of its methods."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel, SERVICE)


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
    *,
    mounts: NodeMounts | None = None,
    store: BackupStore | None = None,
    spdk: str | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[ServedProxy]:
    """Serve the proxy and connect to it; without `mounts`, the node has none that matter.

    `spdk` is the address of the SPDK service of the node, None if it has none; `certificates` are for it.
    """
    channels, completion = Channels(Background(), idle_seconds), Completion()
    engines = engines_over(channels, timeouts)
    services = Channels(Background(), idle_seconds, certificates=certificates)
    v2 = ProxyV2(spdk_engines_over(services, spdk, port_elsewhere(spdk), timeouts)) if spdk else None
    service = ProxyService(engines, completion, mounts or NoMounts(), store or Backups(), v2)
    trail = AuditTrail(lambda: 1.0)
    async with served(service, trail) as (channel, port):
        yield ServedProxy(ProxyClient(channel), channels, trail, port)
    await completion.close()
    await channels.close()
    await services.close()


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
