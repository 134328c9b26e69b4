"""Conversion between the proxy's messages and values of the core."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from instance_manager.core.engine import RebuildStatus, RestoreStatus
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import syncagent_pb2

M = TypeVar("M", bound=Message)


def filled(message: type[M], value: Any) -> M:
    """Return a message with the fields of a value; the names are the same."""
    return message(**{field.name: getattr(value, field.name) for field in dataclasses.fields(value)})


def all_filled(message: type[M], values: Mapping[str, Any]) -> dict[str, M]:
    """Return values as messages, under the same keys."""
    return {key: filled(message, value) for key, value in values.items()}


def restore_to_wire(status: RestoreStatus) -> pb.EngineBackupRestoreStatus:
    """Return how a restore goes; the file has another name here than in the engine."""
    values = dataclasses.asdict(status)
    return pb.EngineBackupRestoreStatus(filename=values.pop("dest_file_name"), **values)


def rebuild_to_wire(status: RebuildStatus) -> syncagent_pb2.ReplicaRebuildStatusResponse:
    """Return how a rebuild goes; older engines tell one address instead of a list."""
    message = filled(syncagent_pb2.ReplicaRebuildStatusResponse, status)
    if not message.from_replica_address_list and message.from_replica_address:
        message.from_replica_address_list.append(message.from_replica_address)
    return message
