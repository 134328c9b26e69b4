"""Removing, purging, hashing and cloning snapshots."""

from collections.abc import Sequence

from instance_manager.app.engine.control import Engines
from instance_manager.app.engine.each import ask_each, failures, raise_joined, successes
from instance_manager.core.engine import Engine, Replica
from instance_manager.core.engine_orders import CloneOrder, CloneRequest
from instance_manager.core.engine_rules import (
    check_clone_targets,
    check_hashing,
    check_removal,
    clone_source,
    refused,
)
from instance_manager.core.errors import UpstreamError


class Snapshots:
    """Each method raises `UpstreamError`.

    What was done before an error is not undone, and doing it again is harmless.
    """

    def __init__(self, engines: Engines) -> None:
        self._controllers = engines.controllers
        self._replicas = engines.replicas
        self._agents = engines.agents

    async def remove(self, engine: Engine, names: Sequence[str]) -> None:
        """Mark snapshots for the next purge, each on every replica.

        One that cannot be marked does not keep the others from it; the last error is raised then. If the
        engine or a replica does not answer, the others are left out: each would take as long.
        """
        last: UpstreamError | None = None
        for number, name in enumerate(names, 1):
            try:
                await self._remove(engine, name)
            except UpstreamError as error:
                last = error
                if error.is_silence and (left := len(names) - number):
                    raise UpstreamError(
                        error.code, f"{error}; {left} more snapshots were not tried"
                    ) from error
        if last is not None:
            raise last

    async def _remove(self, engine: Engine, name: str) -> None:
        replicas = await self._controllers.replicas(engine)
        check_removal(successes(await ask_each(replicas, self._replicas.get)))
        for replica in replicas:
            await self._replicas.mark_removed(replica, name)
            await self._agents.hash_cancel(replica, name)

    async def purge(self, engine: Engine, *, skip_if_in_progress: bool) -> None:
        """Begin to free, on every replica, what is marked.

        Nothing is begun if a replica fails, is being rebuilt or is purging already; the last is no error if
        `skip_if_in_progress`.
        """
        replicas = await self._controllers.replicas(engine)
        looks = await ask_each(replicas, self._is_purging)
        if any(purging is True for _, purging in looks) and skip_if_in_progress:
            return
        failed = failures(looks)
        failed += [
            (each.address, "cannot purge: it is already purging") for each, busy in looks if busy is True
        ]
        raise_joined(failed)
        failed = failures(await ask_each(replicas, self._agents.purge))
        raise_joined([each for each in failed if not (skip_if_in_progress and "already purging" in each[1])])

    async def _is_purging(self, replica: Replica) -> bool:
        if (await self._replicas.get(replica)).rebuilding:
            raise refused("cannot purge: it is rebuilding")
        return (await self._agents.purge_status(replica)).is_purging

    async def hash(self, engine: Engine, name: str, *, again: bool) -> None:
        """Begin to compute the checksum of a snapshot on every replica, unless one of them is busy."""
        replicas = await self._controllers.replicas(engine)
        successes(await ask_each(replicas, self._check_hashing))
        started = await ask_each(replicas, lambda each: self._agents.hash(each, name, again=again))
        raise_joined(failures(started))

    async def _check_hashing(self, replica: Replica) -> None:
        check_hashing(replica)
        if (await self._replicas.get(replica)).rebuilding:
            check_hashing(replica, "is rebuilding")
        if await self._agents.hash_locked(replica):
            check_hashing(replica, "is hashing another snapshot")

    async def clone(self, engine: Engine, request: CloneRequest) -> None:
        """Copy a snapshot of another volume to all replicas, and return when that is done."""
        source = clone_source(await self._controllers.replicas(request.source), request.source.volume)
        replicas = await self._controllers.replicas(engine)
        check_clone_targets(replicas)
        order = CloneOrder(source, request)
        raise_joined(failures(await ask_each(replicas, lambda each: self._agents.clone(each, order))))
