"""How the audit trail is shown: a line for each call, aligned for people, JSON for programs."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import click

from instance_manager.cli.quantities import age
from instance_manager.cli.render import as_dict, as_text, printable
from instance_manager.pb.instance_manager.v1.audit_pb2 import AuditEntry

_GAP = "   "
COLUMNS: Mapping[str, Callable[[AuditEntry], str]] = {
    "LAST SEEN": lambda entry: age(time.time() - entry.time.ToNanoseconds() / 1e9),
    "METHOD": lambda entry: entry.method.rpartition("/")[2],
    "NAME": lambda entry: entry.name,
    "UUID": lambda entry: entry.uuid,
    "CALLER": lambda entry: entry.caller,
    "CODE": lambda entry: entry.code,
    "DETAIL": lambda entry: entry.detail,
}


def show(entries: Iterable[AuditEntry], output: str | None, names: Collection[str], tail: int | None) -> None:
    """Print the last `tail` calls about these names; `output` is text, wide, json, or None to choose."""
    chosen = [entry for entry in entries if not names or entry.name in names][-(tail or 0) :]
    if output != "wide" and not as_text(output):
        for entry in chosen:
            click.echo(json.dumps(as_dict(entry)))
        return
    if not chosen:
        return
    rows = [
        list(COLUMNS),
        *([printable(cell(entry)) or "-" for cell in COLUMNS.values()] for entry in chosen),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(_GAP.join(padded).rstrip())
