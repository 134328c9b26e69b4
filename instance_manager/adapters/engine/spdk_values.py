"""Conversion of what SPDK services tell of v2 engines into values of the core."""

from instance_manager.adapters.engine.controllers import MOST_REPLICAS
from instance_manager.adapters.engine.values import MOST_FILES, check_count
from instance_manager.core.engine import LARGEST_SIZE, CloneStatus, Disk, Mode, RebuildStatus, Replica
from instance_manager.core.engine_v2 import EngineState, Exposure, is_rebuilding, with_scheme
from instance_manager.core.errors import UpstreamError
from instance_manager.core.snapshots import HEAD
from instance_manager.pb.spdkrpc import lvol_pb2
from instance_manager.pb.spdkrpc import spdk_pb2 as pb

_MODES = {pb.ReplicaMode.WO: Mode.WO, pb.ReplicaMode.RW: Mode.RW, pb.ReplicaMode.ERR: Mode.ERR}
_WHOLE = 100
"""Percent."""


def engine_state(told: pb.Engine, failure: str) -> EngineState:
    """Return an engine; replicas without an address or a mode are left out.

    Args:
        told: the message.
        failure: begins the message of an error.

    Raises:
        UpstreamError: if it tells of more than an engine can have.
    """
    check_count(failure, "replicas", len(told.replica_address_map), MOST_REPLICAS)
    check_count(failure, "snapshots", len(told.snapshots), MOST_FILES)
    children = sum(len(each.children) for each in told.snapshots.values()) + len(told.head.children)
    check_count(failure, "children", children, MOST_FILES)
    if told.spec_size > LARGEST_SIZE:
        raise UpstreamError("UNKNOWN", f"{failure}: its size cannot be {told.spec_size} bytes")
    names = sorted(told.replica_address_map.keys() & told.replica_mode_map.keys())
    return EngineState(
        volume=told.volume_name,
        size=told.spec_size,
        snapshot_max_count=told.snapshot_max_count,
        exposure=exposure(told),
        replicas=tuple(
            Replica(
                address=with_scheme(told.replica_address_map[name]),
                # In one that nobody knows yet, it cannot be used.
                mode=_MODES.get(told.replica_mode_map[name], Mode.ERR),
                volume=told.volume_name,
                name=name,
            )
            for name in names
        ),
        snapshots={name: _disk(name, each) for name, each in told.snapshots.items()}
        | ({HEAD: _disk(HEAD, told.head)} if told.HasField("head") else {}),
    )


def exposure(told: pb.Engine | pb.EngineFrontend) -> Exposure:
    """Return how an engine or a frontend offers its volume."""
    return Exposure(
        endpoint=told.endpoint,
        frontend=told.frontend,
        is_expanding=told.is_expanding,
        last_expansion_error=told.last_expansion_error,
        last_expansion_failed_at=told.last_expansion_failed_at,
    )


def _disk(name: str, told: lvol_pb2.Lvol) -> Disk:
    return Disk(
        name=name,
        parent=told.parent,
        children=dict(told.children),
        user_created=told.user_created,
        created=told.snapshot_timestamp or told.creation_time,
        size=str(told.actual_size),
    )


def rebuild_status(told: pb.ReplicaRebuildingDstShallowCopyCheckResponse) -> RebuildStatus:
    """Return how a rebuild goes, with all snapshots that it copies."""
    return RebuildStatus(
        is_rebuilding=is_rebuilding(told.total_state),
        error=told.error,
        progress=min(told.total_progress, _WHOLE),
        state=told.total_state,
        from_replica_address=with_scheme(told.src_replica_address),
    )


def clone_status(told: pb.ReplicaSnapshotCloneDstStatusCheckResponse) -> CloneStatus:
    """Return how a clone goes."""
    return CloneStatus(
        is_cloning=told.is_cloning,
        error=told.error,
        progress=min(told.progress, _WHOLE),
        state=told.state,
        from_replica_address=with_scheme(told.src_replica_address),
        snapshot_name=told.snapshot_name,
    )
