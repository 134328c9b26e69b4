"""Instances of the v2 data engine, which live in the SPDK service.

The instance manager does not start or stop them itself: it checks a request, forwards it and returns the
answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, auto

from instance_manager.core.addresses import parse_address
from instance_manager.core.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from instance_manager.core.instance import InstanceType
from instance_manager.core.names import MAX_NAME_LENGTH, validate_name
from instance_manager.core.ports import MAX_PORT


class DataLayout(StrEnum):
    """How the data of a volume is distributed."""

    REPLICATED = auto()
    """Each replica holds all of it."""
    SHARDED = auto()
    """Erasure-coded: each shard holds a piece, and a missing piece is computed from the others."""


@dataclass(frozen=True, slots=True)
class ShardEndpoint:
    """The address of a shard, and its slot in the erasure code."""

    address: str
    slot_index: int


@dataclass(frozen=True, slots=True)
class ShardGroupSpec:
    """How a volume is distributed over its shards."""

    data_chunks: int
    parity_chunks: int
    strip_size_kb: int
    shards: Mapping[str, ShardEndpoint] = field(default_factory=dict)
    salvage_requested: bool = False


@dataclass(frozen=True, slots=True)
class SpdkSpec:
    """The specification of an instance; which fields are used depends on the type."""

    type: InstanceType
    name: str
    volume_name: str = ""
    size: int = 0
    """Bytes."""
    port_count: int = 0
    data_layout: DataLayout = DataLayout.REPLICATED
    frontend: str = ""
    replica_address_map: Mapping[str, str] = field(default_factory=dict)
    engine_name: str = ""
    initiator_address: str = ""
    target_address: str = ""
    upgrade_required: bool = False
    salvage_requested: bool = False
    disk_name: str = ""
    disk_uuid: str = ""
    backing_image_name: str = ""
    ublk_queue_depth: int = 0
    ublk_number_of_queue: int = 0
    nvme_tcp_nr_io_queues: int = 0
    snapshot_max_count: int = 0
    slot_index: int = 0
    lvs_name: str = ""
    lvs_uuid: str = ""
    shard_group: ShardGroupSpec | None = None


@dataclass(frozen=True, slots=True)
class NvmeTcpPath:
    """One path from an engine frontend to an engine."""

    engine_name: str
    target_ip: str
    target_port: int
    nqn: str
    nguid: str
    ana_state: str


@dataclass(frozen=True, slots=True)
class SpdkInstance:
    """An instance as reported by the SPDK service."""

    type: InstanceType
    name: str
    state: str
    error_msg: str = ""
    uuid: str = ""
    """Identifies this very instance; empty for a type to which the SPDK service gives none: a shard group."""
    volume_name: str = ""
    """Volume it belongs to; empty if the SPDK service does not report it, as for a replica."""
    port_start: int = 0
    port_end: int = 0
    target_port: int = 0
    standby_target_port: int = 0
    ublk_id: int = 0
    engine_name: str = ""
    endpoint: str = ""
    frontend: str = ""
    active_path: str = ""
    preferred_path: str = ""
    paths: tuple[NvmeTcpPath, ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchOver:
    """The request to switch an engine frontend over to another target."""

    name: str
    target_address: str
    engine_name: str
    phase: str
    """The only phase to run; empty for all of them."""


SUSPENDABLE = frozenset({InstanceType.ENGINE, InstanceType.ENGINE_FRONTEND})
"""Types whose I/O can be suspended; the others have none of their own."""

DEFAULT_PORT = 8504
"""Where SPDK services listen, unless an option says otherwise."""


def port_elsewhere(local: str) -> int:
    """Return the port of the SPDK services of other nodes, given the address of that of this node."""
    return parse_address(local).port or DEFAULT_PORT


LEFT_BY_DELETE = frozenset({InstanceType.ENGINE, InstanceType.ENGINE_FRONTEND})
"""Types that a delete without `cleanup_required` leaves alone, because they hold no data."""


def validate_spdk_spec(spec: SpdkSpec) -> None:
    """Check everything that can be checked without the SPDK service.

    Raises:
        InvalidArgumentError: if a field is wrong; the message names it and its valid values.
    """
    if spec.type is not InstanceType.SHARD or spec.name:
        validate_name(spec.name)
    if not 0 <= spec.port_count <= MAX_PORT:
        raise InvalidArgumentError(f"cannot use a port_count of {spec.port_count}: it is 0 to {MAX_PORT}")
    match spec.type:
        case InstanceType.ENGINE:
            _validate_engine(spec)
        case InstanceType.ENGINE_FRONTEND:
            _require(spec, "volume_name", spec.volume_name)
        case InstanceType.REPLICA:
            _require(spec, "spdk_instance_spec.disk_name or disk_uuid", spec.disk_name or spec.disk_uuid)
            if spec.data_layout is DataLayout.SHARDED:
                raise InvalidArgumentError(
                    "cannot create a replica of a sharded volume: its pieces are of the type 'shard'"
                )
        case InstanceType.SHARD:
            _require(spec, "volume_name", spec.volume_name)
            _require(spec, "spdk_instance_spec.lvs_name or lvs_uuid", spec.lvs_name or spec.lvs_uuid)
        case InstanceType.SHARD_GROUP:
            _require(spec, "volume_name", spec.volume_name)
            _validate_shard_group(spec.shard_group)


def _require(spec: SpdkSpec, what: str, value: str) -> None:
    if not value:
        raise InvalidArgumentError(f"cannot create a v2 {spec.type} without {what}: set it")


def _validate_engine(spec: SpdkSpec) -> None:
    _require(spec, "volume_name", spec.volume_name)
    if spec.data_layout is DataLayout.SHARDED and len(spec.replica_address_map) != 1:
        raise InvalidArgumentError(
            f"cannot create the engine of a sharded volume with {len(spec.replica_address_map)} addresses: "
            "replica_address_map holds one, that of the shard group"
        )


def _validate_shard_group(group: ShardGroupSpec | None) -> None:
    if group is None:
        raise InvalidArgumentError(
            "cannot create a shard group without a layout: set spdk_instance_spec.shard_group_spec"
        )
    if group.data_chunks < 1 or group.parity_chunks < 1:
        raise InvalidArgumentError(
            f"cannot lay a volume out in {group.data_chunks} data and {group.parity_chunks} parity chunks: "
            "there is at least one of each"
        )
    slots = group.data_chunks + group.parity_chunks
    taken: dict[int, str] = {}
    for name, shard in group.shards.items():
        if shard.slot_index >= slots:
            raise InvalidArgumentError(
                f"cannot put the shard {name!r} into slot {shard.slot_index}: there are {slots}, from 0 on"
            )
        other = taken.setdefault(shard.slot_index, name)
        if other != name:
            raise InvalidArgumentError(
                f"cannot put two shards into slot {shard.slot_index}: {other!r} and {name!r}"
            )


def validate_spdk_name(name: str) -> None:
    """Check a name without insisting on the rules for new ones, as the SPDK service makes some names itself.

    Raises:
        InvalidArgumentError: if the name is empty or too long.
    """
    if not name:
        raise InvalidArgumentError("cannot use an empty name: set the name of the instance")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidArgumentError(
            f"cannot use a name of {len(name)} characters: {MAX_NAME_LENGTH} is the most there may be"
        )


def confirm_identity(instance: SpdkInstance, uuid: str) -> None:
    """Check that an instance has the UUID that a caller has given.

    Raises:
        NotFoundError: if it has another one.
        FailedPreconditionError: if it has none.
    """
    if not instance.uuid:
        raise FailedPreconditionError(
            f"cannot confirm that the {instance.type} {instance.name!r} has the UUID {uuid!r}: the SPDK "
            "service gives it none; look at it, and leave the UUID out if it is the one you mean"
        )
    if instance.uuid != uuid:
        raise NotFoundError(
            f"cannot find the {instance.type} {instance.name!r} with the UUID {uuid!r}: "
            f"the one of this name has {instance.uuid!r}"
        )


def last_known(instance: SpdkInstance, reason: str) -> SpdkInstance:
    """Return an instance as last known, with the reason in `error_msg` why nothing newer is known.

    The state is kept: controllers take an unknown state for a crash, and would stop healthy instances.
    """
    reported = f"; reported by it: {instance.error_msg}" if instance.error_msg else ""
    return replace(instance, error_msg=f"last known state: {reason}{reported}")
