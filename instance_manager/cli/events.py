"""`instance-manager events`: past changes, and new ones as they come."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from instance_manager.cli.connection import complete_instances, connected
from instance_manager.cli.parameters import examples, local_option
from instance_manager.cli.units import parse_duration

if TYPE_CHECKING:
    from instance_manager.client import Client


@click.command(
    epilog=examples(
        "events",
        "events --for r1 --since 1h30m",
        "events -w --type engine",
        "events -w -o json | jq .reason",
        "events --audit --since 1h",
    )
)
@click.option("-w", "--watch", is_flag=True, help="Follow new changes until Ctrl-C.")
@click.option(
    "--for",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_instances,
    help="Only changes of this instance; may be given several times.  [default: all]",
)
@click.option(
    "--since",
    type=parse_duration,
    metavar="DURATION",
    help="Only changes of the last 90 (seconds), 10m, 1h30m, 2d.  [default: all that are remembered]",
)
@click.option(
    "--type",
    "types",
    type=click.Choice(["engine", "replica"]),
    multiple=True,
    help="Only changes of instances of this type.  [default: all]",
)
@click.option(
    "--tail",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Show only the last COUNT changes.  [default: all]",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Show the audit trail instead: who called which changing method, and with which result.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "wide", "json"]),
    help="A line per change: text, text with more columns, or JSON.  "
    "[default: text on a terminal, otherwise json]",
)
@local_option
@connected
async def cli(
    client: "Client",
    watch: bool,
    names: Sequence[str],
    since: int | None,
    types: Sequence[str],
    tail: int | None,
    audit: bool,
    output: str | None,
    local: bool,
) -> None:
    """Show the changes of v1 instances, oldest first.

    The daemon remembers a limited number of them, across restarts. With --watch, a lost connection is made
    again without missing a change; if the daemon has forgotten some in between, a notice on stderr says so.
    """
    from instance_manager.cli import audit as trail
    from instance_manager.cli.event_lines import EventLines, follow

    since_time = None if since is None else datetime.now(UTC) - timedelta(seconds=since)
    if audit:
        if watch or types:
            raise click.UsageError("cannot use --watch or --type with --audit: it shows past calls")
        entries = (await client.audit(since_time=since_time, limit=0 if names else tail or 0)).entries
        trail.show(entries, output, names, tail)
        return
    history = await client.event_history(since_time=since_time, names=names, types=types, limit=tail or 0)
    lines = EventLines(output, history.events, local=local)
    lines.show(history.events)
    if watch:
        await follow(client, history, lines, names=names, types=types)
    elif not history.events:
        click.echo(f"No {'such ' if names or types or since else ''}changes are remembered.", err=True)
