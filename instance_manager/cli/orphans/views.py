"""How orphans are shown: records, instances that are never judged, and the reads behind a verdict."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from instance_manager.cli import render
from instance_manager.cli.orphans.context import SHORT
from instance_manager.cli.units import age, moment
from instance_manager.orphans.manual import Explanation, Reading
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner, Resolution, Unreadable
from instance_manager.orphans.verification import Read


@dataclass(frozen=True, slots=True)
class WithoutIdentity:
    """An instance without a UUID: never judged, and deleted by a person only."""

    instance: ObservedInstance
    manager: str
    url: str

    @property
    def delete_command(self) -> str:
        """The command that deletes it; empty for v2, where only the data engine knows what belongs to it."""
        if self.instance.data_engine == "v2":
            return ""
        words = ("longhorn-instance-manager", "--url", self.url, "process", "delete")
        return shlex.join((*words, "--name", self.instance.name))


# --- records ---


def _deletion(record: Orphan) -> str:
    """Return how far the deletion of an orphan is, in few words."""
    if record.deleted_by:
        return "under way"
    if record.attempts:
        return f"failed {record.attempts}x"
    return f"asked by {record.requested_by}" if record.requested_by else ""


def _since(moment: float) -> str:
    return age(time.time() - moment)


Columns = Mapping[str, Callable[[Orphan], str]]

_NAME: Columns = {"NAME": lambda record: record.name[:SHORT]}
_FULL_NAME: Columns = {"NAME": lambda record: record.name}
_INSTANCE: Columns = {
    "INSTANCE": lambda record: record.instance.name,
    "TYPE": lambda record: record.instance.kind,
    "MANAGER": lambda record: record.manager,
}
_OPEN: Columns = {
    **_INSTANCE,
    "AGE": lambda record: _since(record.created),
    "DELETION": _deletion,
    "UUID": lambda record: record.instance.uuid,
}
_MORE: Columns = {
    "ENGINE": lambda record: record.instance.data_engine,
    "REASON": lambda record: record.reason,
    "TROUBLE": lambda record: record.last_error,
}
_ENDED: Columns = {
    **_INSTANCE,
    "FATE": lambda record: record.resolution,
    "ENDED": lambda record: _since(record.ended),
    "OUTCOME": lambda record: record.outcome,
}
_MORE_ENDED: Columns = {"UUID": lambda record: record.instance.uuid, "REASON": lambda record: record.reason}


def _time(seconds: float) -> str | None:
    return moment(seconds) if seconds else None


def as_dict(record: Orphan) -> dict[str, Any]:
    """Return a record for programs."""
    return {
        "name": record.name,
        "type": record.type,
        "data_engine": str(record.instance.data_engine),
        "parameters": record.parameters,
        "conditions": {"InstanceExist": record.exists},
        "created": _time(record.created),
        "reason": record.reason,
        "fate": str(record.resolution),
        "ended": _time(record.ended),
        "outcome": record.outcome,
        "requested_by": record.requested_by,
        "requested_at": _time(record.requested_at),
        "deleted_by": record.deleted_by,
        "attempts": record.attempts,
        "trouble": record.last_error,
    }


def show_record(record: Orphan, output: str | None) -> None:
    """Print one record in one of `render.FORMS`; None chooses by who reads it."""
    output = output or ("table" if render.on_terminal() else "json")
    if output in {"json", "yaml"}:
        render.show_data(as_dict(record), output)
    else:
        _show_lines([record], output, ended=record.resolution is not Resolution.OPEN)


def show_records(records: Sequence[Orphan], output: str | None, *, ended: bool) -> None:
    """Print open records, or ended ones.

    As data, open records are an object by name, ended ones a list: the same instance may be found twice.
    """
    output = output or ("table" if render.on_terminal() else "json")
    if output not in {"json", "yaml"}:
        _show_lines(records, output, ended=ended)
    elif ended:
        render.show_data({"history": [as_dict(record) for record in records]}, output)
    else:
        render.show_data({record.name: as_dict(record) for record in records}, output)


def show_all(records: Sequence[Orphan], others: Sequence[WithoutIdentity], output: str | None) -> None:
    """Print open records, and the instances that are never judged; as names only the records."""
    output = output or ("table" if render.on_terminal() else "json")
    if output in {"json", "yaml"}:
        data = {
            "orphans": {record.name: as_dict(record) for record in records},
            "without_identity": [_other_as_dict(other) for other in others],
        }
        render.show_data(data, output)
        return
    _show_lines(records, output, ended=False)
    if output == "name":
        return
    click.echo(f"\n{len(others)} without identity: no UUID, not judged, never deleted automatically")
    if others:
        rows = [
            (
                *(other.instance.name, other.instance.kind, other.manager, other.instance.state),
                other.delete_command or "only with the means of the data engine",
            )
            for other in others
        ]
        render.show_rows(("INSTANCE", "TYPE", "MANAGER", "STATE", "DELETE BY HAND"), rows, wide=True)


def _other_as_dict(other: WithoutIdentity) -> dict[str, Any]:
    return {
        "instance": other.instance.name,
        "type": other.instance.kind,
        "state": other.instance.state,
        "data_engine": str(other.instance.data_engine),
        "instance_manager": other.manager,
        "verdict": "no identity, not judged",
        "delete_by_hand": other.delete_command,
    }


def _show_lines(records: Sequence[Orphan], output: str, *, ended: bool) -> None:
    if output == "name":
        click.echo("".join(f"{record.name}\n" for record in records), nl=False)
        return
    columns: dict[str, Callable[[Orphan], str]]
    if output == "wide":
        columns = {**_FULL_NAME, **(_ENDED if ended else _OPEN), **(_MORE_ENDED if ended else _MORE)}
    else:
        columns = {**_NAME, **(_ENDED if ended else _OPEN)}
    rows = [[cell(record) for cell in columns.values()] for record in records]
    render.show_rows(list(columns), rows, wide=output == "wide")


# --- the reads behind a verdict ---

_ASKED = {
    Read.INSTANCE: "the instance manager",
    Read.OWNER: "the owners, for this name",
    Read.ALL_OWNERS: "the owners, for all names",
}


def _brought(reading: Reading) -> str:
    match reading.answer:
        case None if reading.what is Read.INSTANCE:
            return "it has no instance of this name"
        case None:
            return "there is no owner of this name"
        case Unreadable(reason):
            return f"no answer: {reason}"
        case ObservedInstance() as instance:
            doing = f"{instance.state}, being deleted" if instance.deleting else instance.state
            return f"{doing}, type {instance.kind or 'unknown'}, UUID {instance.uuid or 'none'}"
        case Owner() as owner:
            return _owner_in_words(owner)
        case owners:
            count = "1 owner" if len(owners) == 1 else f"{len(owners)} owners"
            return f"{count}, none of this name" if owners else "no owners at all"


def _owner_in_words(owner: Owner) -> str:
    facts = (
        f"{owner.kind}, currentState {owner.current_state or 'not set'}",
        f"desireState {owner.desired_state or 'not set'}",
        f"instanceManagerName {owner.instance_manager or 'not set'}",
        f"nodeID {owner.node_id or 'not set'}, ownerID {owner.owner_id or 'not set'}",
    )
    return ", ".join((*facts, "being deleted") if owner.deleting else facts)


def explanation_as_dict(name: str, explanation: Explanation, record: Orphan | None) -> dict[str, Any]:
    """Return the reads and the verdict for programs."""
    return {
        "instance": name,
        "instance_manager": explanation.manager,
        "reads": [{"of": str(each.what), "brought": _brought(each)} for each in explanation.readings],
        "verdict": str(explanation.judgement.verdict),
        "reason": explanation.judgement.reason,
        "record": None if record is None else record.name,
    }


def show_explanation(name: str, explanation: Explanation) -> None:
    """Print the reads about an instance in words, and the verdict."""
    click.echo(render.printable(f"{name} on {explanation.manager}"))
    for number, reading in enumerate(explanation.readings, start=1):
        click.echo(render.printable(f"  {number}. {_ASKED[reading.what]}: {_brought(reading)}"))
    judgement = explanation.judgement
    click.echo(render.printable(f"  verdict: {judgement.verdict.replace('_', ' ')}: {judgement.reason}"))


def record_in_words(record: Orphan | None) -> str:
    """Return what is known of an instance's record."""
    if record is None:
        return "no record"
    words = f"{record.name[:SHORT]}, found {_since(record.created)} ago because {record.reason}"
    if deletion := _deletion(record):
        words += f"; deletion {deletion}"
    return f"{words}; {record.last_error}" if record.last_error else words
