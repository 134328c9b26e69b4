"""The Protocol of what v1 engines and their replicas do."""

from typing import Any, Protocol

from instance_manager.core.engine import (
    CloneStatus,
    Engine,
    HashStatus,
    PurgeStatus,
    RebuildStatus,
    Replica,
    ReplicaInfo,
    RestoreStatus,
)


class EngineControl(Protocol):
    """Asks engines and replicas, wherever they are.

    Every method raises `UpstreamError` with the code that it was answered with. The message says what has
    failed and then, as managers look for it, `rpc error: code = NotFound desc = …`.
    """

    async def forward(self, engine: Engine, method: str, failure: str, request: Any) -> Any:
        """Call a method of the engine's ControllerService.

        Args:
            engine: which one.
            method: name of the method.
            failure: begins the message of an error: "failed to get volume …".
            request: the message that the method takes.

        Returns:
            The message that the method returns.
        """

    async def replicas(self, engine: Engine) -> list[Replica]:
        """Return the replicas of an engine."""

    async def replica(self, replica: Replica) -> ReplicaInfo:
        """Return what a replica tells of itself."""

    async def purge_status(self, replica: Replica) -> PurgeStatus:
        """Return how a purge goes."""

    async def clone_status(self, replica: Replica) -> CloneStatus:
        """Return how a clone goes."""

    async def hash_status(self, replica: Replica, snapshot: str) -> HashStatus:
        """Return the checksum of a snapshot."""

    async def rebuild_status(self, replica: Replica) -> RebuildStatus:
        """Return how a rebuild goes."""

    async def restore_status(self, replica: Replica) -> RestoreStatus:
        """Return how a restore goes."""
