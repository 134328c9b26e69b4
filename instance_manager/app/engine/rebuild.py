"""Adding replicas to a volume, with their data, and removing them."""

import asyncio
from contextlib import suppress

import structlog

from instance_manager.app.engine.control import Engines
from instance_manager.app.engine.reads import EngineReads
from instance_manager.core.addresses import Address
from instance_manager.core.engine import Engine, Mode, Replica
from instance_manager.core.engine_address import engine_address
from instance_manager.core.engine_orders import AddOrder, FilesOrder, StartOrder
from instance_manager.core.engine_rules import (
    CLOSED,
    SEVERAL_SOURCES_API,
    check_files,
    rebuild_sources,
    refused,
)
from instance_manager.core.errors import UpstreamError

log = structlog.get_logger(__name__)

CANCEL_SECONDS = 30.0
"""How long the removal of a replica waits for the replica to end its computations: it may be broken."""


class Membership:
    """Each method raises `UpstreamError`. What fails halfway is not undone: managers remove the replica."""

    def __init__(self, engines: Engines) -> None:
        self._controllers = engines.controllers
        self._replicas = engines.replicas
        self._agents = engines.agents
        self._reads = EngineReads(engines)
        self._adding: set[Address] = set()
        """Replicas that are being added, maybe for callers that have gone."""

    async def add(self, engine: Engine, order: AddOrder) -> None:
        """Add a replica, and return when it has all data; at once if it is the first one.

        It is refused while the same replica is being added: an engine does not notice that, and the later one
        could leave the replica marked as rebuilding.
        """
        address = engine_address(order.replica.address)
        if address in self._adding:
            # Managers know these words.
            raise refused(f"cannot add {order.replica.address}: replica add is already in progress")
        self._adding.add(address)
        try:
            await self._add(engine, order)
        finally:
            self._adding.discard(address)

    async def _add(self, engine: Engine, order: AddOrder) -> None:
        replica = order.replica
        volume = await self._controllers.volume(engine)
        if not volume.replica_count:
            start = StartOrder(replica.address, order.size, order.current_size)
            await self._controllers.start(engine, start)
        elif order.restore:
            await self._check_size(replica, volume.size)
            await self._controllers.add_replica(engine, replica.address, snapshot=False)
        else:
            await self._fit(replica, volume.size)
            await self._forget_rebuild(replica)
            await self._controllers.add_replica(engine, replica.address, snapshot=True)
            await self._rebuild(engine, order)

    async def _check_size(self, replica: Replica, size: int) -> None:
        try:
            found = (await self._replicas.get(replica)).size
        finally:
            with suppress(UpstreamError):
                await self._replicas.close(replica)
        if found != size:
            raise refused(f"cannot add {replica.address}: it has {found} bytes and the volume {size}")

    async def _fit(self, replica: Replica, size: int) -> None:
        """Give a replica the size of the volume."""
        info = await self._replicas.get(replica)
        if info.size > size:
            raise refused(
                f"cannot add {replica.address}: its {info.size} bytes are more than the {size} here"
            )
        if info.size < size:
            if info.state == CLOSED:
                await self._replicas.open(replica)
            await self._replicas.expand(replica, size)
            if info.state == CLOSED:
                await self._replicas.close(replica)

    async def _forget_rebuild(self, replica: Replica) -> None:
        """Let a replica forget that an earlier rebuild was interrupted."""
        info = await self._replicas.get(replica)
        if info.state == CLOSED and info.rebuilding:
            await self._replicas.open(replica)
            await self._replicas.set_rebuilding(replica, rebuilding=False)
            await self._replicas.close(replica)

    async def _rebuild(self, engine: Engine, order: AddOrder) -> None:
        replica = order.replica
        members = await self._controllers.replicas(engine)
        rebuild_sources(members, replica.address, 1)
        sources = rebuild_sources(members, replica.address, await self._source_limit(engine, len(members)))
        await self._replicas.set_rebuilding(replica, rebuilding=True)
        files = tuple(await self._controllers.prepare_rebuild(engine, replica))
        check_files(files)
        await self._agents.sync_files(
            replica,
            FilesOrder(
                sources=sources,
                files=files,
                fast_sync=order.fast_sync,
                http_timeout=order.http_timeout,
                grpc_timeout=order.grpc_timeout,
                local=order.local,
            ),
        )
        await self._replicas.reload(replica)
        await self._controllers.verify_rebuild(engine, replica)
        await self._replicas.set_rebuilding(replica, rebuilding=False)

    async def _source_limit(self, engine: Engine, most: int) -> int:
        if await self._controllers.api_version(engine) < SEVERAL_SOURCES_API:
            return most
        return await self._controllers.sync_limit(engine)

    async def remove(self, engine: Engine, address: str) -> None:
        """Remove a replica, after a try to end what it computes; nothing if there is none."""
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._cancel_hashing(engine, Replica(address, Mode.ERR, engine.volume))
        except (UpstreamError, TimeoutError) as error:
            log.info("replica removed without ending what it computes", address=address, reason=str(error))
        await self._controllers.remove_replica(engine, address)

    async def _cancel_hashing(self, engine: Engine, replica: Replica) -> None:
        for name in await self._reads.snapshots(engine):
            await self._agents.hash_cancel(replica, name)
