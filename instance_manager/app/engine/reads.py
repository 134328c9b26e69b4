"""What managers poll: snapshots, and how long-lasting work goes on each replica."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from instance_manager.app.engine.control import Engines
from instance_manager.app.engine.each import ask_each
from instance_manager.core.engine import (
    CloneStatus,
    Disk,
    Engine,
    HashStatus,
    Mode,
    PurgeStatus,
    RebuildStatus,
    Replica,
    RestoreStatus,
)
from instance_manager.core.errors import UpstreamError
from instance_manager.core.snapshots import most_complete, snapshots_of

T = TypeVar("T")


class EngineReads:
    """Each method raises `UpstreamError` if the engine fails.

    A replica that does not tell its status gets one with an error.
    """

    def __init__(self, engines: Engines) -> None:
        self._controllers = engines.controllers
        self._replicas = engines.replicas
        self._agents = engines.agents

    async def snapshots(self, engine: Engine) -> Mapping[str, Disk]:
        """Return the snapshots and the head by name, as the replica with the most of them has them.

        Raises:
            UpstreamError: also if one of the complete replicas fails.
        """
        complete = [each for each in await self._controllers.replicas(engine) if each.mode is Mode.RW]
        lists = []
        for replica, told in await ask_each(complete, self._snapshots_of):
            if isinstance(told, UpstreamError):
                raise UpstreamError(told.code, f"cannot get the snapshots of {replica.address}: {told}")
            lists.append(told)
        return most_complete(lists)

    async def _snapshots_of(self, replica: Replica) -> Mapping[str, Disk]:
        return snapshots_of(await self._replicas.get(replica))

    async def purge_status(self, engine: Engine) -> dict[str, PurgeStatus]:
        """Return how a purge goes, by address of the replica; those that are no longer used are left out."""
        return await self._of_used(engine, self._agents.purge_status, lambda text: PurgeStatus(error=text))

    async def restore_status(self, engine: Engine) -> dict[str, RestoreStatus]:
        """Return how a restore goes, by address of the replica; those no longer used are left out."""
        return await self._of_used(
            engine, self._agents.restore_status, lambda text: RestoreStatus(error=text)
        )

    async def clone_status(self, engine: Engine) -> dict[str, CloneStatus]:
        """Return how a clone goes, by address of the replica."""
        replicas = await self._controllers.replicas(engine)
        return await _by_address(replicas, self._agents.clone_status, lambda text: CloneStatus(error=text))

    async def hash_status(self, engine: Engine, snapshot: str) -> dict[str, HashStatus]:
        """Return the checksum of a snapshot, by address of the replica."""

        async def ask(replica: Replica) -> HashStatus:
            if replica.mode is not Mode.RW:
                raise UpstreamError(
                    "UNKNOWN", f"cannot get the checksum because {replica.address} is in {replica.mode} mode"
                )
            if (await self._replicas.get(replica)).rebuilding:
                raise UpstreamError(
                    "UNKNOWN", f"cannot get the checksum because {replica.address} is rebuilding"
                )
            return await self._agents.hash_status(replica, snapshot)

        replicas = await self._controllers.replicas(engine)
        return await _by_address(replicas, ask, lambda text: HashStatus(state="error", error=text))

    async def rebuild_status(self, engine: Engine) -> dict[str, RebuildStatus]:
        """Return how the rebuild goes, by address of the replica that is being rebuilt.

        A volume that is being restored is not being rebuilt.

        Raises:
            UpstreamError: also if such a replica does not tell whether it is being restored.
        """
        rebuilding = [each for each in await self._controllers.replicas(engine) if each.mode is Mode.WO]
        for _, restore in await ask_each(rebuilding, self._agents.restore_status):
            if isinstance(restore, UpstreamError):
                raise restore
            if restore.dest_file_name:
                return {}
        return await _by_address(
            rebuilding, self._agents.rebuild_status, lambda text: RebuildStatus(error=text)
        )

    async def _of_used(
        self, engine: Engine, ask: Callable[[Replica], Awaitable[T]], failed: Callable[[str], T]
    ) -> dict[str, T]:
        used = [each for each in await self._controllers.replicas(engine) if each.mode is not Mode.ERR]
        return await _by_address(used, ask, failed)


async def _by_address(
    replicas: Iterable[Replica], ask: Callable[[Replica], Awaitable[T]], failed: Callable[[str], T]
) -> dict[str, T]:
    return {
        replica.address: failed(str(told)) if isinstance(told, UpstreamError) else told
        for replica, told in await ask_each(replicas, ask)
    }
