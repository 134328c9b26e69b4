"""Output of the audit trail: one line per call, aligned for people, JSON for programs."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import click

from instance_manager.cli.render import as_dict, as_text, printable, show_plain
from instance_manager.cli.units import age
from instance_manager.pb.instance_manager.v1.audit_pb2 import AuditEntry

COLUMNS: Mapping[str, Callable[[AuditEntry], str]] = {
    "LAST SEEN": lambda entry: age(time.time() - entry.time.ToNanoseconds() / 1e9),
    "METHOD": lambda entry: entry.method.rpartition("/")[2],
    "NAME": lambda entry: entry.name,
    "UUID": lambda entry: entry.uuid,
    "CALLER": lambda entry: entry.caller,
    "CODE": lambda entry: entry.code,
    "SUBJECT": lambda entry: entry.subject,
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
    rows = [[printable(cell(entry)) or "-" for cell in COLUMNS.values()] for entry in chosen]
    show_plain(list(COLUMNS), rows)
