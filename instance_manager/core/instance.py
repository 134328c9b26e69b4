"""Types of instances of both data engines."""

from enum import StrEnum
from typing import Literal, TypeAlias

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import is_engine_name

DataEngine: TypeAlias = Literal["v1", "v2"]
"""v1: an instance is an OS process; v2: it lives in the SPDK service."""


class InstanceType(StrEnum):
    """The type of an instance; v1 has only engines and replicas."""

    ENGINE = "engine"
    """Distributes the I/O of a volume over its replicas or shards."""
    ENGINE_FRONTEND = "engine-frontend"
    """Exposes an engine to the node as a block device or an NVMe/TCP target."""
    REPLICA = "replica"
    """A full copy of a volume's data."""
    SHARD = "shard"
    """One piece of an erasure-coded volume."""
    SHARD_GROUP = "shardgroup"
    """Combines the shards of an erasure-coded volume."""


def parse_instance_type(text: str) -> InstanceType:
    """Read the `type` of a request.

    Raises:
        InvalidArgumentError: if there is no such type.
    """
    if not text:
        raise InvalidArgumentError(f"no instance type given: set one of {', '.join(InstanceType)}")
    try:
        return InstanceType(text)
    except ValueError:
        raise InvalidArgumentError(
            f"cannot use the instance type {text!r}: it is one of {', '.join(InstanceType)}"
        ) from None


def type_of_process(name: str, created_as: str) -> InstanceType:
    """Return the instance type of a process.

    Args:
        name: name of the process.
        created_as: the type it was created with. If it is empty, or unknown because it comes from a damaged
            journal, the type follows from the name, see `names.is_engine_name`.
    """
    try:
        return InstanceType(created_as)
    except ValueError:
        return InstanceType.ENGINE if is_engine_name(name) else InstanceType.REPLICA
