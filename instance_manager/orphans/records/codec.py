"""Records as rows, and the agent's sources as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instance_manager.orphans.model import DataEngine, ObservedInstance, Orphan, Resolution

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
class Sources:
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
        str(record.fate),
        record.ended,
        record.outcome,
        record.requested_by,
        record.requested_at,
        record.deleted_by,
        record.attempts,
        record.trouble,
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
            data_engine=DataEngine(fields["data_engine"]),
            deleting=bool(fields["deleting"]),
        ),
        manager=str(fields["instance_manager"]),
        created=float(fields["created"]),
        reason=str(fields["reason"]),
        exists=bool(fields["instance_exist"]),
        fate=Resolution(fields["fate"]),
        ended=float(fields["ended"]),
        outcome=str(fields["outcome"]),
        requested_by=str(fields["requested_by"]),
        requested_at=float(fields["requested_at"]),
        deleted_by=str(fields["deleted_by"]),
        attempts=int(fields["attempts"]),
        trouble=str(fields["trouble"]),
    )
    if record.name != fields["name"]:
        raise ValueError(f"record {fields['name']} is about an instance that has another record's name")
    return record


def encode_sources(sources: Sources) -> dict[str, str]:
    """Return the sources as texts by key."""
    return {
        "owners": sources.owners,
        "targets": json.dumps(dict(sources.targets)),
        "started": repr(sources.started),
        "pid": str(sources.pid),
    }


def decode_sources(texts: Mapping[str, str]) -> Sources | None:
    """Return the sources, None if no agent has written any yet.

    Raises:
        ValueError: if the texts are malformed.
    """
    if "owners" not in texts:
        return None
    try:
        targets = {str(name): str(url) for name, url in json.loads(texts["targets"]).items()}
        return Sources(texts["owners"], targets, float(texts["started"]), int(texts["pid"]))
    except (AttributeError, KeyError) as error:
        raise ValueError(f"the agent's sources are not told: {error!r}") from error
