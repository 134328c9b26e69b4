"""What managers ask of v2 engines, where it takes more than one call of an SPDK service."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from instance_manager.app.engine.each import ask_each, failures
from instance_manager.app.engine.spdk import LOCAL, SpdkEngines
from instance_manager.core.backup_credentials import credential, parse_variables
from instance_manager.core.backups import (
    BackupOrder,
    BackupRequest,
    BackupStatus,
    RestoreError,
    RestoreOrder,
    RestoreRequest,
    StartedBackup,
    replica_errors,
)
from instance_manager.core.engine import CloneStatus, Mode, RebuildStatus
from instance_manager.core.engine_rules import refused
from instance_manager.core.engine_v2 import EngineState, EngineV2, with_scheme, without_scheme
from instance_manager.core.errors import UpstreamError

log = structlog.get_logger(__name__)

WATCH_ATTEMPTS = 10
"""How often a watch that ends is opened again before it is given up."""
WATCH_PAUSE = 1.0
"""Seconds between them."""
_MOST_SILENT = 1024
"""Largest number of silent frontends that are remembered, so that each is logged once."""


class EnginesV2:
    """Each method raises `UpstreamError` if the SPDK service of the engine fails."""

    def __init__(self, spdk: SpdkEngines) -> None:
        self._spdk = spdk
        self._silent: set[str] = set()
        """Frontends whose SPDK service has not answered the last time."""

    async def volume(self, engine: EngineV2) -> EngineState:
        """Return the engine, offered as its frontend tells; if that does not answer, as the engine tells."""
        state = await self._spdk.engine(LOCAL, engine)
        if not engine.frontend:
            return state
        try:
            told = await self._spdk.exposure(engine)
        except UpstreamError as error:
            self._on_silence(engine, error)
            return state
        if engine.frontend in self._silent:
            self._silent.discard(engine.frontend)
            log.info("frontend of a volume tells of it again", frontend=engine.frontend)
        return state.offered_as(told)

    def _on_silence(self, engine: EngineV2, error: UpstreamError) -> None:
        """Log that a frontend tells nothing; as a warning if its service does not answer, and that once."""
        news = error.is_silence and engine.frontend not in self._silent
        tell = log.warning if news else log.debug
        if news:
            if len(self._silent) >= _MOST_SILENT:
                self._silent.clear()
            self._silent.add(engine.frontend)
        tell(
            "frontend of a volume does not tell of it: told as its engine knows it",
            engine=engine.name,
            frontend=engine.frontend,
            reason=str(error),
        )

    async def state(self, engine: EngineV2) -> EngineState:
        """Return the engine."""
        return await self._spdk.engine(engine.host, engine)

    async def remove_snapshots(self, engine: EngineV2, names: Sequence[str]) -> None:
        """Delete snapshots.

        One that cannot be deleted does not keep the others from it; the last error is raised then.
        """
        last: UpstreamError | None = None
        for name in names:
            try:
                await self._spdk.delete_snapshot(engine, name)
            except UpstreamError as error:
                last = error
        if last is not None:
            raise last

    async def rebuild_status(self, engine: EngineV2) -> dict[str, RebuildStatus]:
        """Return how the rebuild goes, by address of the replica that is being rebuilt."""
        rebuilding = (await self.state(engine)).in_mode(Mode.WO)
        told = await ask_each(rebuilding, self._spdk.rebuild_status)
        return {
            replica.address: RebuildStatus(error=str(each)) if isinstance(each, UpstreamError) else each
            for replica, each in told
        }

    async def limit_rebuild(self, engine: EngineV2, megabytes: int) -> None:
        """Limit the bandwidth of the rebuilds in progress, in MB/s, where their replicas can be reached."""
        rebuilding = (await self.state(engine)).in_mode(Mode.WO)
        limited = await ask_each(rebuilding, lambda each: self._spdk.limit_rebuild(each, megabytes))
        for address, reason in failures(limited):
            log.warning("bandwidth of a rebuild is not limited", replica=address, reason=reason)

    async def clone_status(self, engine: EngineV2) -> dict[str, CloneStatus]:
        """Return how a clone goes, by address of the replica; those that cannot be reached are left out.

        If that is all of them, the first one has a status that says nothing.
        """
        complete = (await self.state(engine)).in_mode(Mode.RW)
        if not complete:
            raise refused(f"cannot get the clone status of {engine.name}: it has no replica in mode RW")
        statuses = {}
        for replica, told in await ask_each(complete, self._spdk.clone_status):
            if not isinstance(told, UpstreamError):
                statuses[replica.address] = told
            elif not told.is_silence:
                statuses[replica.address] = CloneStatus(error=str(told))
        return statuses or {complete[0].address: CloneStatus()}

    async def backup(self, engine: EngineV2, request: BackupRequest) -> StartedBackup:
        """Begin a backup of a snapshot.

        Raises:
            InvalidArgumentError: if the credentials are incomplete.
        """
        told = credential(request.target, parse_variables(request.envs))
        return await self._spdk.backup(engine, BackupOrder(request, engine.volume, told))

    async def backup_status(self, engine: EngineV2, backup: str, address: str) -> tuple[str, BackupStatus]:
        """Return the address of the replica that makes a backup, and how that goes.

        Args:
            engine: which one.
            backup: name of the backup.
            address: of the replica; empty: the first complete one that knows the backup.
        """
        if address:
            return await self._spdk.backup_status(engine, backup, without_scheme(address))
        error = refused("cannot find a replica in mode RW")
        for replica in (await self.state(engine)).in_mode(Mode.RW):
            try:
                return await self._spdk.backup_status(engine, backup, without_scheme(replica.address))
            except UpstreamError as unknown:
                if unknown.code != "NOT_FOUND":
                    raise
                error = unknown
        raise error

    async def restore(self, engine: EngineV2, request: RestoreRequest) -> str:
        """Begin to restore a backup on every replica.

        Returns:
            Why it was not begun, as managers read it; empty if it was.

        Raises:
            InvalidArgumentError: if the credentials are incomplete.
            UpstreamError: if something else than credentials is to be set.
        """
        told = credential(request.target, parse_variables(request.envs))
        order = RestoreOrder(request.url, "", told, request.concurrent_limit)
        try:
            failed = await self._spdk.restore(engine, order)
            if failed:
                raise replica_errors([(with_scheme(each), failed[each]) for each in sorted(failed)])
        except (RestoreError, UpstreamError) as error:
            return str(error)
        return ""

    async def image_pings(self) -> AsyncGenerator[None]:
        """Yield whenever a backing image of this node may have changed, until the watch cannot be opened."""
        failed = 0
        while True:
            try:
                async with aclosing(self._spdk.image_pings()) as pings:
                    async for _ in pings:
                        failed = 0
                        yield
                error = UpstreamError("UNAVAILABLE", "the watch of backing images has ended")
            except UpstreamError as reason:
                error = reason
            failed += 1
            if failed >= WATCH_ATTEMPTS:
                raise error
            await asyncio.sleep(WATCH_PAUSE)
            # Something may have changed in between.
            yield
