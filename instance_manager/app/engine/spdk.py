"""The Protocol of v2 engines and their replicas: what SPDK services are asked, on this node and on others."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from instance_manager.core.backups import BackupOrder, BackupStatus, RestoreOrder, StartedBackup
from instance_manager.core.engine import CloneStatus, RebuildStatus, Replica
from instance_manager.core.engine_v2 import EngineState, EngineV2, Exposure

LOCAL = None
"""Instead of a host: the SPDK service of this node."""


class SpdkEngines(Protocol):
    """Every method raises `UpstreamError` with the code that it was answered with.

    The message says what has failed and then `rpc error: code = NotFound desc = …`, as for v1.
    """

    async def forward(
        self, host: str | None, method: str, failure: str, request: Any, copying: int | None = None
    ) -> Any:
        """Call a method as it is.

        Args:
            host: where the SPDK service is; LOCAL: here.
            method: name of the method.
            failure: begins the message of an error: "failed to expand …".
            request: the message that the method takes.
            copying: if it returns only when data has been copied, the seconds that it may take; 0: as long as
                such a copy may take.

        Returns:
            The message that the method returns.
        """

    async def engine(self, host: str | None, engine: EngineV2) -> EngineState:
        """Return an engine, as the SPDK service on a host has it."""

    async def exposure(self, engine: EngineV2) -> Exposure:
        """Return what the frontend of an engine tells; it gets a few seconds, as nothing depends on it."""

    async def delete_snapshot(self, engine: EngineV2, name: str) -> None:
        """Delete a snapshot."""

    async def rebuild_status(self, replica: Replica) -> RebuildStatus:
        """Return how the rebuild of a replica goes, as the SPDK service of its host tells."""

    async def limit_rebuild(self, replica: Replica, megabytes: int) -> None:
        """Limit the bandwidth of the rebuild of a replica, in MB/s, at the SPDK service of its host."""

    async def clone_status(self, replica: Replica) -> CloneStatus:
        """Return how a clone to a replica goes, as the SPDK service of its host tells."""

    async def backup(self, engine: EngineV2, order: BackupOrder) -> StartedBackup:
        """Begin a backup of a snapshot."""

    async def backup_status(self, engine: EngineV2, backup: str, address: str) -> tuple[str, BackupStatus]:
        """Return the address of the replica that makes a backup, and how that goes."""

    async def restore(self, engine: EngineV2, order: RestoreOrder) -> Mapping[str, str]:
        """Begin to restore a backup; return why it was not begun, by address of the replica."""

    def image_pings(self) -> AsyncGenerator[None]:
        """Yield whenever a backing image of this node has changed, until the stream ends."""
