"""Records as rows, and the agent's settings as text."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from instance_manager.core.instance import DataEngine
from instance_manager.orphans.model import ObservedInstance, Orphan, Resolution

_INSTANCE = {
    "instance": "name",
    "uuid": "uuid",
    "type": "kind",
    "state": "state",
    "data_engine": "data_engine",
    "deleting": "deleting",
}
"""Fields of `ObservedInstance` by column."""
_RECORD = {
    "instance_manager": "manager",
    "created": "created",
    "reason": "reason",
    "instance_exist": "exists",
    "fate": "resolution",
    "ended": "ended",
    "outcome": "outcome",
    "requested_by": "requested_by",
    "requested_at": "requested_at",
    "deleted_by": "deleted_by",
    "attempts": "attempts",
    "trouble": "last_error",
}
"""Fields of `Orphan` by column."""
COLUMNS = ("name", *_INSTANCE, *_RECORD)
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
    instance = [getattr(record.instance, field) for field in _INSTANCE.values()]
    return (record.name, *instance, *(getattr(record, field) for field in _RECORD.values()))


def from_row(row: Sequence[Any]) -> Orphan:
    """Return the record in a row.

    Raises:
        ValueError: if the row is malformed, or its name does not match its content.
    """
    values = dict(zip(COLUMNS, row, strict=True))
    record = Orphan(ObservedInstance(**_fields(values, _INSTANCE)), **_fields(values, _RECORD))
    if record.name != values["name"]:
        raise ValueError(f"record {values['name']} is about an instance that has another record's name")
    return record


def _fields(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {field: _TYPES.get(field, str)(values[column]) for column, field in names.items()}


def _data_engine(value: Any) -> DataEngine:
    if value not in get_args(DataEngine):
        raise ValueError(f"there is no data engine {value!r}")
    return value  # type: ignore[no-any-return]


_TYPES: Mapping[str, Callable[[Any], object]] = {
    "data_engine": _data_engine,
    "resolution": Resolution,
    **dict.fromkeys(("deleting", "exists"), bool),
    **dict.fromkeys(("created", "ended", "requested_at"), float),
    "attempts": int,
}
"""Types of fields that are no text."""


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
