"""How large answers of engines and SPDK services may be."""

import functools
import json

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from instance_manager.pb.ptypes import controller_pb2, replica_pb2, syncagent_pb2
from instance_manager.pb.spdkrpc import spdk_pb2

MAX_ANSWER_BYTES = 32 << 10
"""Much more than an answer has that tells of each replica, but not of each snapshot or file."""
MAX_LARGE_BYTES = 1 << 20
"""Much more than 250 snapshots with their labels, or their files."""
_OF_MANY = {"disks", "snapshots", "sync_file_info_list"}
"""Fields with an entry for each snapshot or file."""
_SERVICES: tuple[ServiceDescriptor, ...] = (
    controller_pb2.DESCRIPTOR.services_by_name["ControllerService"],
    replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"],
    syncagent_pb2.DESCRIPTOR.services_by_name["SyncAgentService"],
    spdk_pb2.DESCRIPTOR.services_by_name["SPDKService"],
)


@functools.cache
def may_be_large(method: MethodDescriptor) -> bool:
    """Return whether the answer of a method tells of each snapshot or file."""
    return _tells_of_many(method.output_type, frozenset())


def _tells_of_many(message: Descriptor, seen: frozenset[str]) -> bool:
    if message.full_name in seen:
        return False
    seen |= {message.full_name}
    if _OF_MANY & set(message.fields_by_name):
        return True
    return any(each.message_type and _tells_of_many(each.message_type, seen) for each in message.fields)


def service_config() -> str:
    """Return gRPC's configuration of a channel, by which it takes no answer that is larger."""
    large = [
        {"service": service.full_name, "method": method.name}
        for service in _SERVICES
        for method in service.methods
        if may_be_large(method)
    ]
    bounds = [
        {"name": [{}], "maxResponseMessageBytes": MAX_ANSWER_BYTES},
        {"name": large, "maxResponseMessageBytes": MAX_LARGE_BYTES},
    ]
    return json.dumps({"methodConfig": bounds})
