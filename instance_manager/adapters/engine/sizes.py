"""How large answers of engines and SPDK services may be."""

import functools
import json

from google.protobuf.descriptor import Descriptor, MethodDescriptor

MAX_ANSWER_BYTES = 32 << 10
"""Much more than an answer has that tells of each replica, but not of each snapshot or file."""
MAX_LARGE_BYTES = 1 << 20
"""Much more than 250 snapshots with their labels, or their files."""
_OF_MANY = {"disks", "snapshots", "sync_file_info_list"}
"""Fields with an entry for each snapshot or file."""


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


def service_config(most: int) -> str:
    """Return gRPC's configuration of a channel that takes no answer with more bytes."""
    return json.dumps({"methodConfig": [{"name": [{}], "maxResponseMessageBytes": most}]})
