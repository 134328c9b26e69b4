"""The options that describe a new instance."""

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from instance_manager.cli import parameters
from instance_manager.cli.connection import complete_instances
from instance_manager.cli.units import parse_size
from instance_manager.core.instance import InstanceType

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from instance_manager.pb.imrpc.instance_pb2 import InstanceSpec


def _text(name: str, help_text: str, metavar: str = "NAME") -> Any:
    return click.option(name, default="", metavar=metavar, help=f"{help_text}  [default: none]")


def _pair(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Read NAME=ADDRESS, any number of times."""
    pairs = [each.partition("=") for each in given]
    for name, equals, address in pairs:
        if not (name and equals and address):
            raise click.BadParameter(f"cannot use {name + equals + address!r}: write NAME=HOST:PORT")
    return {name: address for name, _, address in pairs}


def _shards(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read NAME=ADDRESS,SLOT, any number of times."""
    found: dict[str, dict[str, Any]] = {}
    for each in given:
        parts = re.fullmatch(r"([^=]+)=([^,]+),(\d{1,9})", each)
        if parts is None:
            raise click.BadParameter(f"cannot use {each!r}: write NAME=HOST:PORT,SLOT, the first slot is 0")
        if parts[1] in found:
            raise click.BadParameter(f"cannot use the shard {parts[1]!r} twice: give each name once")
        found[parts[1]] = {"address": parts[2], "slot_index": int(parts[3])}
    return found


def _number(name: str, help_text: str) -> Any:
    return click.option(
        name,
        type=click.IntRange(0, 2**31 - 1),
        default=0,
        show_default=True,
        metavar="NUMBER",
        help=help_text,
    )


V2_OPTIONS: Mapping[str, Any] = {
    "initiator_address": _text("--initiator-address", "Address of its initiator (v2).", "HOST"),
    "target_address": _text("--target-address", "Address of its target (v2).", "ADDRESS"),
    "engine_name": _text("--engine-name", "Engine behind a frontend (v2)."),
    "upgrade_required": click.option(
        "--upgrade-required", is_flag=True, help="It takes over from a running engine (v2)."
    ),
    "size": click.option(
        "--size",
        type=parse_size,
        default=0,
        metavar="SIZE",
        help="Size in bytes, or with Ki, Mi, Gi or Ti (v2).  [default: 0]",
    ),
    "disk_name": _text("--disk-name", "Disk to create it on (v2)."),
    "disk_uuid": _text("--disk-uuid", "UUID of that disk (v2).", "UUID"),
    "lvs_name": _text("--lvs-name", "Logical volume store to create it in (v2)."),
    "lvs_uuid": _text("--lvs-uuid", "UUID of that store (v2).", "UUID"),
    "frontend": _text(
        "--frontend", "How an engine is exposed to the node, such as spdk-tcp-blockdev (v2).", "FRONTEND"
    ),
    "replica_address_map": click.option(
        "--replica-address",
        "replica_address_map",
        multiple=True,
        callback=_pair,
        metavar="NAME=ADDRESS",
        help="A replica of an engine and its address; repeat for each replica (v2).  [default: none]",
    ),
    "backing_image_name": _text("--backing-image-name", "Backing image of a replica (v2)."),
    "ublk_queue_depth": _number("--ublk-queue-depth", "Requests in flight on a ublk device (v2)."),
    "ublk_number_of_queue": _number("--ublk-number-of-queue", "Queues of a ublk device (v2)."),
    "nvme_tcp_nr_io_queues": _number("--nvme-tcp-nr-io-queues", "I/O queues of an NVMe/TCP frontend (v2)."),
    "snapshot_max_count": _number("--snapshot-max-count", "Most snapshots an engine may have (v2)."),
    "slot_index": _number("--slot-index", "Slot of a shard in the erasure code (v2)."),
    "data_chunks": _number("--data-chunks", "Data shards of a shard group (v2)."),
    "parity_chunks": _number("--parity-chunks", "Parity shards of a shard group: how many may be lost (v2)."),
    "strip_size_kb": _number("--strip-size-kb", "Strip size of a shard group, in KiB (v2)."),
    "shards": click.option(
        "--shard",
        "shards",
        multiple=True,
        callback=_shards,
        metavar="NAME=ADDRESS,SLOT",
        help="A shard of a shard group, its address and its slot in the erasure code; repeat for each shard "
        "(v2).  [default: none]",
    ),
    "salvage_requested": click.option(
        "--salvage-requested", is_flag=True, help="Salvage the data of failed replicas or shards (v2)."
    ),
}
"""Options that only the SPDK service understands, by the name of the parameter."""


def spec_parameters(command: parameters.Command) -> parameters.Command:
    """Give a command the options that describe an instance; it takes them as `spec`."""

    @functools.wraps(command)
    def with_spec(**given: Any) -> None:
        with parameters.sendable():
            spec, others = _spec(given)
        command(spec=spec, **others)

    decorators = (
        parameters.program_parameters("instance", complete_instances, binary_required=False),
        parameters.type_option(required=True),
        parameters.data_engine_option(),
        _text("--volume-name", "Volume it belongs to."),
        *V2_OPTIONS.values(),
    )
    return functools.reduce(lambda so_far, decorator: decorator(so_far), reversed(decorators), with_spec)


def _spec(given: dict[str, Any]) -> tuple["InstanceSpec", dict[str, Any]]:
    """Return the spec that the parameters describe, and the remaining parameters."""
    from instance_manager.client.instances import ENGINES
    from instance_manager.pb.imrpc import common_pb2
    from instance_manager.pb.imrpc import instance_pb2 as pb

    others = dict(given)
    engine, binary, args = others.pop("data_engine"), others.pop("binary"), others.pop("args")
    others["type"] = others.pop("kind")
    of_v2 = {name for name in V2_OPTIONS if others[name]}
    of_spdk = _taken(others, pb.SpdkInstanceSpec)
    of_group = _taken(others, common_pb2.ShardGroupSpec)
    spec = pb.InstanceSpec(data_engine=ENGINES[engine], **_taken(others, pb.InstanceSpec))
    if engine == "v2":
        if binary or args:
            raise click.UsageError("cannot run a program as an instance of v2: leave --binary and ARGS out")
        spec.spdk_instance_spec.CopyFrom(pb.SpdkInstanceSpec(**of_spdk))
        if spec.type == InstanceType.SHARD_GROUP:
            group = common_pb2.ShardGroupSpec(salvage_requested=of_spdk["salvage_requested"], **of_group)
            spec.spdk_instance_spec.shard_group_spec.CopyFrom(group)
        elif any(of_group.values()):
            raise click.UsageError(
                f"cannot lay the shards of a {spec.type} out: give --type shardgroup, or leave out "
                "--data-chunks, --parity-chunks, --strip-size-kb and --shard"
            )
    else:
        if not binary:
            raise click.UsageError("cannot start an instance of v1 without a program: give --binary PATH")
        if of_v2:
            parameters = click.get_current_context().command.params
            flags = ", ".join(each.opts[0] for each in parameters if each.name in of_v2)
            raise click.UsageError(f"cannot use {flags} for v1: give --data-engine v2 as well")
        spec.process_instance_spec.binary = binary
        spec.process_instance_spec.args.extend(args)
    return spec, others


def _taken(parameters: dict[str, Any], kind: "type[Message]") -> dict[str, Any]:
    """Remove from `parameters`, and return, those that are fields of a message."""
    names = [field.name for field in kind.DESCRIPTOR.fields if field.name in parameters]
    return {name: parameters.pop(name) for name in names}
