"""Kinds of instances, whatever data engine they belong to."""

from enum import StrEnum

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import is_engine_name


class InstanceType(StrEnum):
    """What an instance is; v1 has engines and replicas only."""

    ENGINE = "engine"
    """Takes the I/O of a volume and spreads it over its replicas or shards."""
    ENGINE_FRONTEND = "engine-frontend"
    """Shows an engine to the node as a block device or an NVMe/TCP target."""
    REPLICA = "replica"
    """A whole copy of a volume's data."""
    SHARD = "shard"
    """One piece of an erasure-coded volume."""
    SHARD_GROUP = "shardgroup"
    """The shards of one erasure-coded volume, and the code that spans them."""


def parse_instance_type(text: str) -> InstanceType:
    """Read the `type` of a request.

    Raises:
        InvalidArgumentError: if there is no such type.
    """
    if not text:
        raise InvalidArgumentError(
            f"cannot tell which instance is meant without its type: set one of {', '.join(InstanceType)}"
        )
    try:
        return InstanceType(text)
    except ValueError:
        raise InvalidArgumentError(
            f"cannot use the instance type {text!r}: it is one of {', '.join(InstanceType)}"
        ) from None


def type_of_process(name: str, created_as: str) -> InstanceType:
    """Return what a process of the v1 data engine is.

    Args:
        name: of the process.
        created_as: the type it was created with; if it was created without one, or a damaged journal tells
            one that there is not, the name tells (see `names.is_engine_name`).
    """
    try:
        return InstanceType(created_as)
    except ValueError:
        return InstanceType.ENGINE if is_engine_name(name) else InstanceType.REPLICA
