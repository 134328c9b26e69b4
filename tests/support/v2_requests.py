"""Requests with data_engine v2: a specimen of each type, and what is asked about it."""

from typing import Any

from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.patience import patience

WITHIN = patience(30.0)
V2 = common_pb2.DATA_ENGINE_V2
GROUP = common_pb2.ShardGroupSpec(
    data_chunks=2,
    parity_chunks=1,
    strip_size_kb=64,
    shards={
        f"v-{slot}": common_pb2.ShardEndpoint(address=f"10.0.0.{slot}:1", slot_index=slot)
        for slot in range(3)
    },
    salvage_requested=True,
)
SPECS: dict[str, pb.InstanceSpec] = {
    "engine": pb.InstanceSpec(
        name="v-e-0",
        initiator_address="10.0.0.9",
        target_address="10.0.0.8:1",
        upgrade_required=True,
        spdk_instance_spec=pb.SpdkInstanceSpec(
            replica_address_map={"v-r-0": "10.0.0.1:1"},
            size=1 << 30,
            frontend="spdk-tcp-blockdev",
            salvage_requested=True,
            ublk_queue_depth=16,
            ublk_number_of_queue=2,
            snapshot_max_count=9,
        ),
    ),
    "engine-frontend": pb.InstanceSpec(
        name="v-ef-0",
        engine_name="v-e-0",
        target_address="10.0.0.8:1",
        spdk_instance_spec=pb.SpdkInstanceSpec(size=1 << 30, frontend="ublk", nvme_tcp_nr_io_queues=3),
    ),
    "replica": pb.InstanceSpec(
        name="v-r-0",
        spdk_instance_spec=pb.SpdkInstanceSpec(
            disk_name="disk", disk_uuid="disk-uuid", size=1 << 30, backing_image_name="image"
        ),
    ),
    "shard": pb.InstanceSpec(
        name="v-2",
        spdk_instance_spec=pb.SpdkInstanceSpec(
            slot_index=2, size=1 << 20, lvs_name="disk", lvs_uuid="disk-uuid"
        ),
    ),
    "shardgroup": pb.InstanceSpec(
        name="v-sg", spdk_instance_spec=pb.SpdkInstanceSpec(size=1 << 30, shard_group_spec=GROUP)
    ),
}
KINDS = list(SPECS)
IDENTIFIED = [kind for kind in KINDS if kind != "shardgroup"]
SERVICE_NAMES = {
    "engine": "Engine",
    "engine-frontend": "EngineFrontend",
    "replica": "Replica",
    "shard": "Shard",
    "shardgroup": "ShardGroup",
}


def create_request(kind: str, **changed: Any) -> pb.InstanceCreateRequest:
    """Return the request that creates one of a type, with some fields of the spec changed."""
    spec = pb.InstanceSpec(type=kind, volume_name="v", port_count=1, data_engine=V2)
    spec.MergeFrom(SPECS[kind])
    for field, value in changed.items():
        setattr(spec, field, value)
    return pb.InstanceCreateRequest(spec=spec)


def delete_request(kind: str, uuid: str = "", *, cleanup: bool = True) -> pb.InstanceDeleteRequest:
    return pb.InstanceDeleteRequest(
        name=SPECS[kind].name, type=kind, uuid=uuid, cleanup_required=cleanup, data_engine=V2
    )


def get_request(kind: str) -> pb.InstanceGetRequest:
    return pb.InstanceGetRequest(name=SPECS[kind].name, type=kind, data_engine=V2)
