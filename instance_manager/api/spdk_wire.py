"""Conversion between InstanceService's messages and the core's values of the v2 data engine."""

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.instance import InstanceType, parse_instance_type
from instance_manager.core.spdk import (
    DataLayout,
    ShardEndpoint,
    ShardGroupSpec,
    SpdkInstance,
    SpdkSpec,
)
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb

_LAYOUTS = {
    common_pb2.DATA_LAYOUT_TYPE_REPLICATED: DataLayout.REPLICATED,
    common_pb2.DATA_LAYOUT_TYPE_SHARDED: DataLayout.SHARDED,
}


def spdk_spec_from_wire(request: pb.InstanceCreateRequest) -> SpdkSpec:
    """Return what a request asks for.

    Raises:
        InvalidArgumentError: if a part of it is missing or unknown.
    """
    if not request.HasField("spec"):
        raise InvalidArgumentError(
            "cannot create an instance without a spec: set spec.name, type and data_engine"
        )
    spec = request.spec
    kind = parse_instance_type(spec.type)
    if not spec.HasField("spdk_instance_spec"):
        raise InvalidArgumentError(f"cannot create a v2 {kind} without spec.spdk_instance_spec: set it")
    if request.data_layout_type not in _LAYOUTS:
        raise InvalidArgumentError(
            f"cannot use the data_layout_type {request.data_layout_type}: it is 0 (replicated) or 1 (sharded)"
        )
    spdk = spec.spdk_instance_spec
    return SpdkSpec(
        type=kind,
        name=spec.name,
        volume_name=spec.volume_name,
        size=spdk.size,
        port_count=spec.port_count,
        data_layout=_LAYOUTS[request.data_layout_type],
        frontend=spdk.frontend,
        replica_address_map=dict(spdk.replica_address_map),
        engine_name=spec.engine_name,
        initiator_address=spec.initiator_address,
        target_address=spec.target_address,
        upgrade_required=spec.upgrade_required,
        salvage_requested=spdk.salvage_requested,
        disk_name=spdk.disk_name,
        disk_uuid=spdk.disk_uuid,
        backing_image_name=spdk.backing_image_name,
        ublk_queue_depth=spdk.ublk_queue_depth,
        ublk_number_of_queue=spdk.ublk_number_of_queue,
        nvme_tcp_nr_io_queues=spdk.nvme_tcp_nr_io_queues,
        snapshot_max_count=spdk.snapshot_max_count,
        slot_index=spdk.slot_index,
        lvs_name=spdk.lvs_name,
        lvs_uuid=spdk.lvs_uuid,
        shard_group=_shard_group(spdk.shard_group_spec) if spdk.HasField("shard_group_spec") else None,
    )


def _shard_group(group: common_pb2.ShardGroupSpec) -> ShardGroupSpec:
    return ShardGroupSpec(
        data_chunks=group.data_chunks,
        parity_chunks=group.parity_chunks,
        strip_size_kb=group.strip_size_kb,
        shards={name: ShardEndpoint(shard.address, shard.slot_index) for name, shard in group.shards.items()},
        salvage_requested=group.salvage_requested,
    )


def spdk_instance_to_wire(instance: SpdkInstance) -> pb.InstanceResponse:
    """Return an instance as clients see it."""
    return pb.InstanceResponse(
        spec=_spec(instance.type, instance.name, instance.volume_name),
        status=pb.InstanceStatus(
            state=instance.state,
            error_msg=instance.error_msg,
            port_start=instance.port_start,
            port_end=instance.port_end,
            target_port_start=instance.target_port,
            target_port_end=instance.target_port,
            standby_target_port_start=instance.standby_target_port,
            standby_target_port_end=instance.standby_target_port,
            ublk_id=instance.ublk_id,
            uuid=instance.uuid,
            engine_name=instance.engine_name,
            endpoint=instance.endpoint,
            frontend=instance.frontend,
            active_path=instance.active_path,
            preferred_path=instance.preferred_path,
            paths=[
                pb.EngineFrontendNvmeTcpPath(
                    engine_name=path.engine_name,
                    target_ip=path.target_ip,
                    target_port=path.target_port,
                    nqn=path.nqn,
                    nguid=path.nguid,
                    ana_state=path.ana_state,
                )
                for path in instance.paths
            ],
        ),
    )


def deleted_to_wire(kind: InstanceType, name: str, uuid: str) -> pb.InstanceResponse:
    """Return the answer to a delete: the SPDK service tells nothing of what it has removed."""
    status = pb.InstanceStatus(state="stopped", uuid=uuid)
    return pb.InstanceResponse(spec=_spec(kind, name), status=status, deleted=True)


def _spec(kind: InstanceType, name: str, volume_name: str = "") -> pb.InstanceSpec:
    return pb.InstanceSpec(
        # Clients older than data_engine know only the first.
        backend_store_driver=common_pb2.v2,
        data_engine=common_pb2.DATA_ENGINE_V2,
        name=name,
        type=kind,
        volume_name=volume_name,
    )
