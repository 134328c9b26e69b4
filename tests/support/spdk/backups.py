"""Backups and restores of the SPDK service of the tests."""

from typing import Any

from instance_manager.pb.spdkrpc import spdk_pb2 as pb
from tests.support.spdk.state import RefusedError, State

BEGUN, COMPLETE = "in_progress", "complete"


class Backups:
    """Methods of SPDKService by their own names, with an underscore before. They go on until `finish`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _EngineBackupCreate(self, request: Any) -> Any:  # noqa: N802
        engine = self._state.find("Engine", request.engine_name)
        if request.snapshot_name not in engine.snapshots:
            raise RefusedError("NOT_FOUND", f"cannot find snapshot {request.snapshot_name}")
        modes = engine.replica_mode_map
        complete = [name for name in sorted(modes) if modes[name] == pb.ReplicaMode.RW]
        if not complete:
            raise RefusedError("FAILED_PRECONDITION", "cannot find a replica in mode RW")
        address = engine.replica_address_map[complete[0]]
        status = pb.BackupStatusResponse(
            progress=40, snapshot_name=request.snapshot_name, state=BEGUN, replica_address=address
        )
        self._state.tables["Backup"][f"{request.backup_name}@{address}"] = status
        self._state.changed("Backup")
        return pb.BackupCreateResponse(
            backup=request.backup_name, is_incremental=True, replica_address=address
        )

    def _EngineBackupStatus(self, request: Any) -> Any:  # noqa: N802
        self._state.find("Engine", request.engine_name)
        return self._state.entry("Backup", f"{request.backup}@{request.replica_address}")

    def _EngineBackupRestore(self, request: Any) -> Any:  # noqa: N802
        engine = self._state.find("Engine", request.engine_name)
        errors = {}
        for name, address in engine.replica_address_map.items():
            if engine.replica_mode_map[name] == pb.ReplicaMode.ERR:
                errors[address] = f"replica {name} is in mode ERR"
                continue
            self._state.tables["Restore"][address] = pb.ReplicaRestoreStatusResponse(
                replica_name=name,
                replica_address=address,
                is_restoring=True,
                progress=40,
                dest_file_name=f"{name}-restored",
                state=BEGUN,
                backup_url=request.backup_url,
                current_restoring_backup="b1",
            )
        self._state.changed("Restore")
        return pb.EngineBackupRestoreResponse(errors=errors)

    def _EngineRestoreStatus(self, request: Any) -> Any:  # noqa: N802
        self._state.find("Engine", request.engine_name)
        return pb.RestoreStatusResponse(status=self._state.tables["Restore"])

    def finish(self) -> None:
        """Complete whatever goes on."""
        for status in self._state.tables["Backup"].values():
            status.state, status.progress, status.backup_url = COMPLETE, 100, "vfs:///b?backup=b1"
        for status in self._state.tables["Restore"].values():
            status.state, status.progress, status.is_restoring = COMPLETE, 100, False
            status.last_restored = status.current_restoring_backup
        self._state.changed("Backup")
