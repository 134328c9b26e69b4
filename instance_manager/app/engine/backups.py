"""Backing snapshots up, and restoring backups."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from instance_manager.app.engine.control import Engines
from instance_manager.app.engine.each import Outcome, ask_each, failures, successes
from instance_manager.app.engine.reads import EngineReads
from instance_manager.app.engine.snapshots import Snapshots
from instance_manager.core.backup_credentials import check_backup_url, credential, parse_variables
from instance_manager.core.backups import (
    FRONTEND_UP,
    BackupOrder,
    BackupRequest,
    BackupStatus,
    BackupVolume,
    RestoreError,
    RestoreOrder,
    RestoreRequest,
    StartedBackup,
    check_size,
    check_snapshot,
    replica_errors,
    restored_disk,
)
from instance_manager.core.engine import Engine, Mode, Replica
from instance_manager.core.engine_rules import refused
from instance_manager.core.errors import UpstreamError
from instance_manager.core.snapshots import HEAD


class BackupStore(Protocol):
    """Looks at backups where they are."""

    async def volume(self, engine: str, url: str, variables: Mapping[str, str]) -> BackupVolume:
        """Return the volume that a backup is of.

        Args:
            engine: name of the engine whose program looks.
            url: of the backup.
            variables: credentials.

        Raises:
            UpstreamError: if the backup cannot be looked at.
        """


class Backups:
    """Credentials are those of the request, and are forgotten with it."""

    def __init__(self, engines: Engines, store: BackupStore, new_uuid: Callable[[], str]) -> None:
        self._controllers = engines.controllers
        self._replicas = engines.replicas
        self._agents = engines.agents
        self._reads = EngineReads(engines)
        self._snapshots = Snapshots(engines)
        self._store = store
        self._new_uuid = new_uuid

    async def create(self, engine: Engine, request: BackupRequest) -> StartedBackup:
        """Begin a backup of a snapshot, from the first complete replica.

        Raises:
            InvalidArgumentError: if the credentials are incomplete.
            UpstreamError: INTERNAL, if it cannot be begun.
        """
        told = credential(request.target, parse_variables(request.envs))
        try:
            return await self._create(engine, request, told)
        except UpstreamError as error:
            raise UpstreamError("INTERNAL", f"failed to create backup: {error}") from error

    async def _create(self, engine: Engine, request: BackupRequest, told: Mapping[str, str]) -> StartedBackup:
        if request.snapshot == HEAD:
            raise refused("cannot backup the head disk in the chain")
        volume = await self._controllers.volume(engine)
        replica = _first_complete(await self._controllers.replicas(engine))
        check_snapshot(replica, await self._replicas.get(replica), request.snapshot)
        order = BackupOrder(request, volume.name, told)
        return await self._agents.backup(replica, order)

    async def status(self, engine: Engine, backup: str, address: str, name: str) -> tuple[str, BackupStatus]:
        """Return the address of the replica that makes a backup, and how that goes.

        Args:
            engine: which one.
            backup: name of the backup.
            address: of the replica; empty: the first complete one. One that was removed may still tell.
            name: of the replica; empty: whichever it is.

        Raises:
            UpstreamError: if the engine fails, or the replica is not complete.
        """
        replicas = await self._controllers.replicas(engine)
        address = address or _first_complete(replicas).address
        for each in replicas:
            if each.address == address and each.mode is not Mode.RW:
                raise refused(f"cannot get backup status from {address}: it is in {each.mode} mode")
        try:
            replica = Replica(address, Mode.RW, engine.volume, name)
            return address, await self._agents.backup_status(replica, backup)
        except UpstreamError as error:
            return address, BackupStatus(error=str(error))

    async def restore(self, engine: Engine, request: RestoreRequest) -> str:
        """Begin to restore a backup on every replica.

        Returns:
            Why it was not begun, as managers read it; empty if it was.

        Raises:
            InvalidArgumentError: if the credentials are incomplete, or a URL cannot be used.
            UpstreamError: INTERNAL, if something else than credentials is to be set.
        """
        variables = parse_variables(request.envs)
        told = credential(request.target, variables)
        check_backup_url(request.url, "cannot restore: the URL of the backup")
        try:
            await self._restore(engine, request, variables, told)
        except (RestoreError, UpstreamError) as error:
            return str(error)
        return ""

    async def _restore(
        self, engine: Engine, request: RestoreRequest, variables: Mapping[str, str], told: Mapping[str, str]
    ) -> None:
        volume = await self._controllers.volume(engine)
        if volume.frontend_state == FRONTEND_UP:
            raise RestoreError(f"volume frontend of {volume.name} is up, cannot restore")
        replicas = await self._controllers.replicas(engine)
        _raise_failed(await ask_each(replicas, self._check_not_rebuilding))
        known, incremental = await self._look([each for each in replicas if each.mode is not Mode.ERR])
        disks = await self._reads.snapshots(engine)
        disk = restored_disk(disks, known, self._new_uuid(), incremental=incremental)
        if not disk:
            await self._snapshots.purge(engine, skip_if_in_progress=True)
            raise RestoreError(
                "found more than 1 snapshot in the replicas, "
                "hence started to purge snapshots before the restore"
            )
        backup = await self._backup(engine, request, variables, replicas)
        check_size(volume, backup, encrypted=request.encrypted, incremental=incremental)
        order = RestoreOrder(request.url, disk, told, request.concurrent_limit)
        _raise_failed(await ask_each(replicas, lambda each: self._restore_on(each, order)))

    async def _check_not_rebuilding(self, replica: Replica) -> None:
        if (await self._replicas.get(replica)).rebuilding:
            raise refused(f"cannot restore: {replica.address} is rebuilding")

    async def _look(self, used: Sequence[Replica]) -> tuple[str, bool]:
        """Return the file that is being restored to, if any, and whether a backup was restored before.

        Raises:
            RestoreError: if a replica purges snapshots, or does not tell.
        """
        purges = await ask_each(used, self._agents.purge_status)
        _raise_failed(purges)
        for replica, purge in successes(purges):
            if purge.is_purging:
                raise RestoreError(f"cannot restore while {replica.address} purges snapshots")
        looks = await ask_each(used, self._agents.restore_status)
        _raise_failed(looks)
        told = [each for _, each in successes(looks)]
        known = [each.dest_file_name for each in told if each.is_restoring and each.dest_file_name]
        return (known[0] if known else ""), any(each.last_restored for each in told)

    async def _backup(
        self,
        engine: Engine,
        request: RestoreRequest,
        variables: Mapping[str, str],
        replicas: Sequence[Replica],
    ) -> BackupVolume:
        try:
            return await self._store.volume(engine.name, request.url, variables)
        except UpstreamError as error:
            text = f"failed to get the current restoring backup info: {error}"
            raise replica_errors([(each.address, text) for each in replicas]) from error

    async def _restore_on(self, replica: Replica, order: RestoreOrder) -> None:
        if replica.mode is Mode.ERR:
            raise refused(f"cannot restore to {replica.address}: it is in ERR mode")
        await self._agents.restore(replica, order)


def _first_complete(replicas: Sequence[Replica]) -> Replica:
    for replica in replicas:
        if replica.mode is Mode.RW:
            return replica
    raise refused("cannot find a replica in mode RW")


def _raise_failed(outcomes: Sequence[Outcome[object]]) -> None:
    if failed := failures(outcomes):
        raise replica_errors(failed)
