"""What may be done to the replicas of a volume, and why not."""

from collections.abc import Sequence

from instance_manager.core.engine import Mode, Replica, ReplicaInfo
from instance_manager.core.engine_orders import SyncFile
from instance_manager.core.errors import UpstreamError

CLOSED = "closed"
"""State of a replica whose files are not open."""
SEVERAL_SOURCES_API = 6
"""First version of the controller's interface that lets a rebuild copy from several replicas."""


def refused(reason: str) -> UpstreamError:
    """Return the error about what is refused here: UNKNOWN, like an engine's own."""
    return UpstreamError("UNKNOWN", reason)


def check_removal(replicas: Sequence[tuple[Replica, ReplicaInfo]]) -> None:
    """Check that a snapshot may be removed from all of these replicas.

    Raises:
        UpstreamError: if one of them does not allow it.
    """
    for replica, info in replicas:
        if info.rebuilding:
            raise refused(f"cannot remove a snapshot because {replica.address} is rebuilding")
    for replica, _ in replicas:
        if replica.mode is not Mode.RW:
            raise refused(f"can only mark snapshot as removed from replica in mode RW, got {replica.mode}")


def check_hashing(replica: Replica, reason: str = "") -> None:
    """Check that the checksum of a snapshot may be computed on a replica.

    Args:
        replica: which one.
        reason: what it is busy with, if anything.

    Raises:
        UpstreamError: if not. Managers know such a replica by these words, and ask again later.
    """
    busy = reason or (f"is in {replica.mode} mode" if replica.mode is not Mode.RW else "")
    if busy:
        raise refused(f"cannot request hashing snapshot because {replica.address} {busy}")


def rebuild_sources(replicas: Sequence[Replica], new: str, limit: int) -> tuple[str, ...]:
    """Return the addresses of the replicas to copy from.

    Args:
        replicas: all of the volume.
        new: address of the one that is rebuilt.
        limit: the largest number of them.

    Raises:
        UpstreamError: if there is none, or the new one is not to be rebuilt.
    """
    modes = {replica.address: replica.mode for replica in replicas}
    if new not in modes:
        raise refused(f"cannot find replica {new} in the volume")
    if modes[new] is not Mode.WO:
        raise refused(f"replica {new} is not in mode WO: {modes[new]}")
    sources = [address for address, mode in modes.items() if mode is Mode.RW]
    if not sources:
        raise refused(f"cannot rebuild {new}: the volume has no replica in mode RW to copy from")
    return tuple(sources[: max(1, limit)])


def check_files(files: Sequence[SyncFile]) -> None:
    """Check what a rebuild is to copy.

    Raises:
        UpstreamError: if it is the file that is being written to.
    """
    for file in files:
        if "volume-head" in file.from_file_name:
            raise refused(f"cannot copy {file.from_file_name}: it is being written to")


def clone_source(replicas: Sequence[Replica], volume: str) -> str:
    """Return the address of the replica to clone from.

    Raises:
        UpstreamError: if none is complete.
    """
    for replica in replicas:
        if replica.mode is Mode.RW:
            return replica.address
    raise refused(f"cannot find a replica in mode RW in the source volume {volume}")


def check_clone_targets(replicas: Sequence[Replica]) -> None:
    """Check that something can be cloned to all of these replicas.

    Raises:
        UpstreamError: if not all are complete.
    """
    for replica in replicas:
        if replica.mode is not Mode.RW:
            raise refused(f"cannot clone to {replica.address}: it is in {replica.mode} mode")
