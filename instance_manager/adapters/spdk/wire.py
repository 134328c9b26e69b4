"""Conversion between the SPDK service's messages and the core's values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from instance_manager.core.instance import InstanceType
from instance_manager.core.spdk import DataLayout, NvmeTcpPath, ShardGroupSpec, SpdkInstance, SpdkSpec
from instance_manager.pb.spdkrpc import ec_pb2, shard_pb2, shardgroup_pb2
from instance_manager.pb.spdkrpc import spdk_pb2 as pb

_SHARD_STATES: Mapping[int, str] = {
    ec_pb2.EC_SLOT_STATE_NORMAL: "running",
    ec_pb2.EC_SLOT_STATE_FAILED: "error",
    # It is served and being filled; the shard group reports how far.
    ec_pb2.EC_SLOT_STATE_REPLACING: "running",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How the SPDK service speaks of one type of instance."""

    prefix: str
    """Of the names of its methods: `Replica` for ReplicaCreate, ReplicaDelete and so on."""
    create: Callable[[SpdkSpec], Message]
    """Return the request that makes one."""
    delete: Callable[[str, bool], Message]
    """Return the request that removes one, given its name and whether its data goes too."""
    get: Callable[[str], Message]
    """Return the request for the one of a name."""
    listed: str
    """Field of the response to a list that holds them by name."""
    read: Callable[[Any], SpdkInstance]
    """Return the instance that a message of the SPDK service describes."""


def _create_engine(spec: SpdkSpec) -> Message:
    layouts = {
        DataLayout.REPLICATED: pb.DATA_LAYOUT_TYPE_REPLICATED,
        DataLayout.SHARDED: pb.DATA_LAYOUT_TYPE_SHARDED,
    }
    return pb.EngineCreateRequest(
        name=spec.name,
        volume_name=spec.volume_name,
        spec_size=spec.size,
        replica_address_map=spec.replica_address_map,
        frontend=spec.frontend,
        port_count=spec.port_count,
        upgrade_required=spec.upgrade_required,
        initiator_address=spec.initiator_address,
        target_address=spec.target_address,
        salvage_requested=spec.salvage_requested,
        ublk_queue_depth=spec.ublk_queue_depth,
        ublk_number_of_queue=spec.ublk_number_of_queue,
        snapshot_max_count=spec.snapshot_max_count,
        data_layout_type=layouts[spec.data_layout],
    )


def _read_engine(engine: pb.Engine) -> SpdkInstance:
    return SpdkInstance(
        type=InstanceType.ENGINE,
        name=engine.name,
        volume_name=engine.volume_name,
        state=engine.state,
        error_msg=engine.error_msg,
        uuid=engine.uuid,
        port_start=engine.port,
        port_end=engine.port,
        target_port=engine.target_port,
        standby_target_port=engine.standby_target_port,
        ublk_id=engine.ublk_id,
        endpoint=engine.endpoint,
        frontend=engine.frontend,
    )


def _create_frontend(spec: SpdkSpec) -> Message:
    return pb.EngineFrontendCreateRequest(
        name=spec.name,
        volume_name=spec.volume_name,
        engine_name=spec.engine_name,
        spec_size=spec.size,
        target_address=spec.target_address,
        frontend=spec.frontend,
        ublk_queue_depth=spec.ublk_queue_depth,
        ublk_number_of_queue=spec.ublk_number_of_queue,
        nvme_tcp_nr_io_queues=spec.nvme_tcp_nr_io_queues,
    )


def _read_frontend(frontend: pb.EngineFrontend) -> SpdkInstance:
    return SpdkInstance(
        type=InstanceType.ENGINE_FRONTEND,
        name=frontend.name,
        volume_name=frontend.volume_name,
        state=frontend.state,
        error_msg=frontend.error_msg,
        uuid=frontend.uuid,
        target_port=frontend.target_port,
        ublk_id=frontend.ublk_id,
        engine_name=frontend.engine_name,
        endpoint=frontend.endpoint,
        frontend=frontend.frontend,
        active_path=frontend.active_path,
        preferred_path=frontend.preferred_path,
        paths=tuple(
            NvmeTcpPath(
                engine_name=path.engine_name,
                target_ip=path.target_ip,
                target_port=path.target_port,
                nqn=path.nqn,
                nguid=path.nguid,
                ana_state=path.ana_state,
            )
            for path in frontend.paths
        ),
    )


def _create_replica(spec: SpdkSpec) -> Message:
    return pb.ReplicaCreateRequest(
        name=spec.name,
        lvs_name=spec.disk_name,
        lvs_uuid=spec.disk_uuid,
        spec_size=spec.size,
        port_count=spec.port_count,
        backing_image_name=spec.backing_image_name,
    )


def _read_replica(replica: pb.Replica) -> SpdkInstance:
    return SpdkInstance(
        type=InstanceType.REPLICA,
        name=replica.name,
        state=replica.state,
        error_msg=replica.error_msg,
        uuid=replica.uuid,
        port_start=replica.port_start,
        port_end=replica.port_end,
    )


def _create_shard(spec: SpdkSpec) -> Message:
    return shard_pb2.ShardCreateRequest(
        volume_name=spec.volume_name,
        slot_index=spec.slot_index,
        size_bytes=spec.size,
        lvs_name=spec.lvs_name,
        lvs_uuid=spec.lvs_uuid,
        port_count=spec.port_count,
    )


def _read_shard(shard: shard_pb2.Shard) -> SpdkInstance:
    state = _SHARD_STATES.get(shard.state)
    return SpdkInstance(
        type=InstanceType.SHARD,
        name=shard.name,
        volume_name=shard.volume_name,
        state=state or "error",
        error_msg=shard.error_msg
        or ("" if state else f"the SPDK service reports an unknown state {shard.state}"),
        uuid=shard.uuid,
        port_start=shard.port,
        port_end=shard.port,
    )


def _create_shard_group(spec: SpdkSpec) -> Message:
    return shardgroup_pb2.ShardGroupCreateRequest(
        name=spec.name,
        volume_name=spec.volume_name,
        spec_size=spec.size,
        port_count=spec.port_count,
        spec=_shard_group_spec(spec.shard_group) if spec.shard_group else None,
    )


def _shard_group_spec(group: ShardGroupSpec) -> shardgroup_pb2.ShardGroupSpec:
    return shardgroup_pb2.ShardGroupSpec(
        data_chunks=group.data_chunks,
        parity_chunks=group.parity_chunks,
        strip_size_kb=group.strip_size_kb,
        shards={
            name: shardgroup_pb2.ShardEndpoint(address=shard.address, slot_index=shard.slot_index)
            for name, shard in group.shards.items()
        },
        salvage_requested=group.salvage_requested,
    )


def _read_shard_group(group: shardgroup_pb2.ShardGroup) -> SpdkInstance:
    # UUIDs of its volume store and head belong to the data: they are the same after a detach and an attach,
    # so they do not distinguish one instance from the next.
    return SpdkInstance(
        type=InstanceType.SHARD_GROUP,
        name=group.name,
        volume_name=group.volume_name,
        state=group.process_state,
        error_msg=group.error_msg,
        port_start=group.port,
        port_end=group.port,
    )


KINDS: Mapping[InstanceType, Kind] = {
    InstanceType.ENGINE: Kind(
        prefix="Engine",
        create=_create_engine,
        delete=lambda name, _: pb.EngineDeleteRequest(name=name),
        get=lambda name: pb.EngineGetRequest(name=name),
        listed="engines",
        read=_read_engine,
    ),
    InstanceType.ENGINE_FRONTEND: Kind(
        prefix="EngineFrontend",
        create=_create_frontend,
        delete=lambda name, _: pb.EngineFrontendDeleteRequest(name=name),
        get=lambda name: pb.EngineFrontendGetRequest(name=name),
        listed="engine_frontends",
        read=_read_frontend,
    ),
    InstanceType.REPLICA: Kind(
        prefix="Replica",
        create=_create_replica,
        delete=lambda name, cleanup: pb.ReplicaDeleteRequest(name=name, cleanup_required=cleanup),
        get=lambda name: pb.ReplicaGetRequest(name=name),
        listed="replicas",
        read=_read_replica,
    ),
    InstanceType.SHARD: Kind(
        prefix="Shard",
        create=_create_shard,
        delete=lambda name, cleanup: shard_pb2.ShardDeleteRequest(name=name, cleanup_required=cleanup),
        get=lambda name: shard_pb2.ShardGetRequest(name=name),
        listed="shards",
        read=_read_shard,
    ),
    InstanceType.SHARD_GROUP: Kind(
        prefix="ShardGroup",
        create=_create_shard_group,
        delete=lambda name, cleanup: shardgroup_pb2.ShardGroupDeleteRequest(
            name=name, cleanup_required=cleanup
        ),
        get=lambda name: shardgroup_pb2.ShardGroupGetRequest(name=name),
        listed="shard_groups",
        read=_read_shard_group,
    ),
}
