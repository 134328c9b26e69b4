"""Output of changes: one line each, aligned for people, JSON for programs."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from instance_manager.cli.render import as_dict, as_text, coloured, printable
from instance_manager.cli.units import age, moment
from instance_manager.cli.watch import announce
from instance_manager.client import Gap, Position
from instance_manager.pb.instance_manager.v1.events_pb2 import Event

if TYPE_CHECKING:
    from instance_manager.client import Client
    from instance_manager.pb.instance_manager.v1.events_pb2 import HistoryResponse

_GAP = "   "
_STATE_CHANGE = "STATE CHANGE"


def _age(event: Event) -> str:
    return age(time.time() - event.time.ToNanoseconds() / 1e9)


def _time(event: Event, *, local: bool = False) -> str:
    return moment(event.time.ToNanoseconds() / 1e9, local=local)


def state_of(event: Event) -> str:
    """Return the state to show: that of the message, or `deleted` if the instance has left the list."""
    return "deleted" if event.deleted else event.instance.state


def state_change(event: Event) -> str:
    """Return `previous -> new`, or only the state if something else has changed."""
    new = state_of(event)
    return new if event.previous_state == new else f"{event.previous_state or 'new'} -> {new}"


def _exit(event: Event) -> str:
    if not event.instance.HasField("exit"):
        return ""
    how = event.instance.exit
    return "unknown" if how.unknown else how.signal or str(how.status)


COLUMNS: Mapping[str, tuple[int, Callable[[Event], str]]] = {
    "LAST SEEN": (9, _age),
    "NAME": (24, lambda event: event.instance.name),
    _STATE_CHANGE: (20, state_change),
    "UUID": (36, lambda event: event.instance.uuid),
    "REASON": (0, lambda event: event.reason or event.instance.error_msg),
}
"""Minimum width and content of each column, by header."""
WIDE_COLUMNS: Mapping[str, tuple[int, Callable[[Event], str]]] = {
    "REVISION": (8, lambda event: str(event.revision)),
    "TIME": (24, _time),
    "TYPE": (7, lambda event: event.instance.type),
    **{header: COLUMNS[header] for header in ("NAME", _STATE_CHANGE, "UUID")},
    "PID": (7, lambda event: str(event.instance.pid or "")),
    "EXIT": (7, _exit),
    "REASON": COLUMNS["REASON"],
}


class EventLines:
    """Prints changes one by one; the first ones determine the widths of the columns."""

    def __init__(self, output: str | None, first: Sequence[Event], *, local: bool = False) -> None:
        """`output` is text, wide or json; None means text on a terminal, else JSON."""
        wide = output == "wide"
        self._as_text = wide or as_text(output)
        self._columns = dict(WIDE_COLUMNS if wide else COLUMNS)
        if wide and local:
            self._columns["TIME"] = (29, partial(_time, local=True))
        longest = max((len(printable(event.instance.name)) for event in first), default=0)
        self._widths = {header: width for header, (width, _) in self._columns.items()}
        self._widths["NAME"] = max(self._widths["NAME"], longest)
        self._headed = False

    def show(self, events: Iterable[Event]) -> None:
        """Print changes, after a header if they are the first."""
        for event in events:
            if self._as_text and not self._headed:
                self._headed = True
                self._print({header: header for header in self._columns})
            if self._as_text:
                cells = {header: printable(cell(event)) or "-" for header, (_, cell) in self._columns.items()}
                self._print(cells, state_of(event))
            else:
                click.echo(json.dumps(as_dict(event)))

    def _print(self, cells: Mapping[str, str], state: str = "") -> None:
        padded = {header: text.ljust(self._widths[header]) for header, text in cells.items()}
        padded[_STATE_CHANGE] = coloured(padded[_STATE_CHANGE], state)
        click.echo(_GAP.join(padded.values()).rstrip())


async def follow(
    client: "Client",
    history: "HistoryResponse",
    lines: EventLines,
    *,
    names: Sequence[str],
    types: Sequence[str],
) -> None:
    """Print every change after a history, until interrupted, with notices about the connection on stderr."""
    since = Position(history.revision, history.epoch)
    stream = await client.events(since=since, names=names, types=types, on_lost=_tell_lost).accepted()
    announce(client)
    async for item in stream:
        if isinstance(item, Gap):
            click.echo(f"Notice: {gap_in_words(item)}", err=True)
        elif isinstance(item, Event):
            lines.show([item])


def _tell_lost(reason: str) -> None:
    click.echo(
        f"Notice: the connection is lost ({printable(reason)}); waiting for the instance manager", err=True
    )


def gap_in_words(gap: Gap) -> str:
    """Return the notice about changes that were lost."""
    match gap.lost:
        case None:
            lost = "an unknown number of changes was"
        case 1:
            lost = "1 change was"
        case count:
            lost = f"{count} changes were"
    return f"{lost} lost here: {printable(gap.reason)}"
