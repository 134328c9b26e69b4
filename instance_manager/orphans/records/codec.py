"""Records as rows, and the agent's settings as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from instance_manager.core.instance import DataEngine
from instance_manager.orphans.model import ObservedInstance, Orphan, Resolution

COLUMNS = (
    "name",
    "instance",
    "uuid",
    "type",
    "state",
    "data_engine",
    "deleting",
    "instance_manager",
    "created",
    "reason",
    "instance_exist",
    "fate",
    "ended",
    "outcome",
    "requested_by",
    "requested_at",
    "deleted_by",
    "attempts",
    "trouble",
)
"""The columns of a row, in this order."""


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """The owners and targets of an agent, so that the commands need not be given them again."""

    owners: str
    """Absolute path of the file or directory with the owners."""
    targets: Mapping[str, str]
    """URL of each instance manager by its name."""
    started: float
    """When the agent was started, in seconds since the epoch."""
    pid: int
    """PID of the agent."""


def to_row(record: Orphan) -> tuple[object, ...]:
    """Return a record as the values of `COLUMNS`."""
    instance = record.instance
    return (
        record.name,
        instance.name,
        instance.uuid,
        str(instance.kind),
        str(instance.state),
        str(instance.data_engine),
        instance.deleting,
        record.manager,
        record.created,
        record.reason,
        record.exists,
        str(record.resolution),
        record.ended,
        record.outcome,
        record.requested_by,
        record.requested_at,
        record.deleted_by,
        record.attempts,
        record.last_error,
    )


def from_row(row: Sequence[Any]) -> Orphan:
    """Return the record in a row.

    Raises:
        ValueError: if the row is malformed, or its name does not match its content.
    """
    fields = dict(zip(COLUMNS, row, strict=True))
    record = Orphan(
        instance=ObservedInstance(
            name=str(fields["instance"]),
            uuid=str(fields["uuid"]),
            kind=str(fields["type"]),
            state=str(fields["state"]),
            data_engine=_data_engine(fields["data_engine"]),
            deleting=bool(fields["deleting"]),
        ),
        manager=str(fields["instance_manager"]),
        created=float(fields["created"]),
        reason=str(fields["reason"]),
        exists=bool(fields["instance_exist"]),
        resolution=Resolution(fields["fate"]),
        ended=float(fields["ended"]),
        outcome=str(fields["outcome"]),
        requested_by=str(fields["requested_by"]),
        requested_at=float(fields["requested_at"]),
        deleted_by=str(fields["deleted_by"]),
        attempts=int(fields["attempts"]),
        last_error=str(fields["trouble"]),
    )
    if record.name != fields["name"]:
        raise ValueError(f"record {fields['name']} is about an instance that has another record's name")
    return record


def _data_engine(value: Any) -> DataEngine:
    if value not in get_args(DataEngine):
        raise ValueError(f"there is no data engine {value!r}")
    return value  # type: ignore[no-any-return]


def encode_agent_info(agent_info: AgentInfo) -> dict[str, str]:
    """Return the settings as texts by key."""
    return {
        "owners": agent_info.owners,
        "targets": json.dumps(dict(agent_info.targets)),
        "started": repr(agent_info.started),
        "pid": str(agent_info.pid),
    }


def decode_agent_info(texts: Mapping[str, str]) -> AgentInfo | None:
    """Return the settings, None if no agent has written any yet.

    Raises:
        ValueError: if the texts are malformed.
    """
    if "owners" not in texts:
        return None
    try:
        targets = {str(name): str(url) for name, url in json.loads(texts["targets"]).items()}
        return AgentInfo(texts["owners"], targets, float(texts["started"]), int(texts["pid"]))
    except (AttributeError, KeyError) as error:
        raise ValueError(f"the agent's owners and targets are malformed: {error!r}") from error
