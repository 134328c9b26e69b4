"""How things are shown: tables for people, JSON, YAML and names for programs."""

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
    """Tell whether a person reads the output."""
    return sys.stdout.isatty()


def coloured(text: str, state: str) -> str:
    """Return a text in the colour of a state if the output can show any."""
    plain = not on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return click.style(text, fg=COLOURS[state]) if state in COLOURS and not plain else text


def as_text(output: str | None) -> bool:
    """Tell whether the choice between text and JSON is for text; None chooses by who reads it."""
    return output == "text" or (output is None and on_terminal())


async def copy_lines(lines: AsyncIterator[str], *, flush: bool) -> None:
    """Print lines as they come; with `flush` none waits for the next."""
    out = sys.stdout.buffer
    async for line in lines:
        out.write(line.encode(errors="replace") + b"\n")
        if flush:
            out.flush()
    out.flush()


def output_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option that says how to show processes; it goes to `show`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMS),
        help="How to show it; wide is a table with more columns, name a name per line.  "
        "[default: table on a terminal, otherwise json]",
    )
    return option(command)


def as_dict(message: "Message") -> dict[str, Any]:
    """Return a message with every field that it has, under the names of the proto."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def printable(text: str) -> str:
    """Return a text on one line and without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(answer: "Listed | Mapping[str, Listed]", output: str | None, view: "View[Listed]") -> None:
    """Print one thing that has a spec and a status, or several by name.

    Args:
        answer: what to print.
        output: one of `FORMS`; None chooses by who reads it.
        view: the columns of its table.
    """
    output = output or ("table" if on_terminal() else "json")
    listed = [answer[name] for name in sorted(answer)] if isinstance(answer, Mapping) else [answer]
    if output == "name":
        click.echo("".join(f"{each.spec.name}\n" for each in listed), nl=False)
    elif output in {"table", "wide"}:
        wide = output == "wide"
        _show_table(listed, view.wide if wide else view.columns, wide=wide)
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
    """Print a table; where a terminal is too narrow, the first column gives way unless it is a wide one."""
    rows = [[printable(cell) or "-" for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    if on_terminal():
        _show_rich(columns, rows, widths, foldable=0 if wide else widths[0] - _NARROWEST_NAME)
    else:
        for row in (columns, *rows):
            line = _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(line.rstrip())


def _show_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], *, foldable: int
) -> None:
    """Print rows in colour and cut nothing off.

    Where the terminal is too narrow, the names go on in the next line, but give way by no more than
    `foldable` characters; beyond that the terminal wraps the lines.
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
