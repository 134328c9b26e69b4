"""Output: tables for people; JSON, YAML and names for programs."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from instance_manager.cli.views import Columns, Listed, View

FORMS = ("table", "wide", "json", "yaml", "name")
COLOURS = {
    "starting": "yellow",
    "running": "green",
    "stopping": "yellow",
    "stopped": "bright_black",
    "error": "red",
    "deleted": "bright_black",
}
"""Colour of each state, by the names that click and rich share."""


def on_terminal() -> bool:
    """Return whether the output goes to a terminal."""
    return sys.stdout.isatty()


def coloured(text: str, state: str) -> str:
    """Return a text in the colour of a state if the output can show any."""
    plain = not on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return click.style(text, fg=COLOURS[state]) if state in COLOURS and not plain else text


def as_text(output: str | None) -> bool:
    """Return whether to print text and not JSON; None means text on a terminal."""
    return output == "text" or (output is None and on_terminal())


async def copy_lines(lines: AsyncIterator[str], *, flush: bool) -> None:
    """Print lines as they arrive; with `flush` each one at once."""
    out = sys.stdout.buffer
    async for line in lines:
        out.write(line.encode(errors="replace") + b"\n")
        if flush:
            out.flush()
    out.flush()


def output_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the --output option, whose value goes to `show`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMS),
        help="Output format; wide is a table with more columns, name prints one name per line.  "
        "[default: table on a terminal, otherwise json]",
    )
    return option(command)


def as_dict(message: "Message") -> dict[str, Any]:
    """Return all fields of a message under the names of the proto."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def printable(text: str) -> str:
    """Return a text on one line, with control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(
    answer: "Listed | Mapping[str, Listed]",
    output: str | None,
    view: "View[Listed]",
    waiting: Mapping[str, str] | None = None,
) -> None:
    """Print one thing that has a spec and a status, or several by name.

    Args:
        answer: what to print.
        output: one of `FORMS`; None means a table on a terminal, else JSON.
        view: the columns of the table.
        waiting: what is waited for, by name; a column of its own if there is any.
    """
    output = output or ("table" if on_terminal() else "json")
    listed = [answer[name] for name in sorted(answer)] if isinstance(answer, Mapping) else [answer]
    if output == "name":
        click.echo("".join(f"{each.spec.name}\n" for each in listed), nl=False)
    elif output in {"table", "wide"}:
        wide = output == "wide"
        columns = dict(view.wide if wide else view.columns)
        if waiting:
            columns["WAITING"] = lambda each: waiting.get(each.spec.name, "")
        _show_table(listed, columns, wide=wide)
    else:
        by_name = {each.spec.name: as_dict(each) for each in listed}
        show_data(by_name if isinstance(answer, Mapping) else as_dict(answer), output)


def show_data(data: dict[str, Any], output: str) -> None:
    """Print something as `yaml` or `json`."""
    if output == "yaml":
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        click.echo(yaml.dump(data, Dumper=dumper, sort_keys=False), nl=False)
    else:
        import json

        click.echo(json.dumps(data, indent=2))


_GAP = "   "
_NARROWEST_NAME = 20
"""Columns to which a narrow terminal may squeeze the names."""


def _show_table(listed: "Sequence[Listed]", columns: "Columns[Listed]", *, wide: bool) -> None:
    show_rows(list(columns), [[cell(each) for cell in columns.values()] for each in listed], wide=wide)


def show_rows(columns: Sequence[str], cells: Sequence[Sequence[str]], *, wide: bool) -> None:
    """Print a table. On a terminal that is too narrow, the names are folded, unless `wide`."""
    rows = [[printable(cell) or "-" for cell in row] for row in cells]
    if on_terminal():
        widths = _widths(columns, rows)
        _show_rich(columns, rows, widths, foldable=0 if wide else widths[0] - _NARROWEST_NAME)
    else:
        show_plain(columns, rows)


def show_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as aligned text."""
    widths = _widths(columns, rows)
    for row in (columns, *rows):
        line = _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(columns, *rows, strict=True)]


def _show_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], *, foldable: int
) -> None:
    """Print rows in colour without cutting anything off.

    On a terminal that is too narrow, the names are folded by up to `foldable` characters; beyond that the
    terminal wraps the lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.width = max(console.width, sum(widths) + len(_GAP) * len(widths) - max(foldable, 0))
    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column != "NAME" or foldable <= 0)
    for row in rows:
        cells = [Text(cell) for cell in row]
        if "STATE" in columns:
            state = columns.index("STATE")
            cells[state].stylize(COLOURS.get(row[state], ""))
        table.add_row(*cells)
    console.print(table)
