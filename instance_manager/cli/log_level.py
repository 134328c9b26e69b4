"""`instance-manager log-level`: how much the daemon or the SPDK service logs."""

from typing import TYPE_CHECKING

import click

from instance_manager.cli.connection import connected
from instance_manager.cli.parameters import data_engine_option, examples

if TYPE_CHECKING:
    from instance_manager.client import Client, DataEngine


@click.group(epilog=examples("log-level get", "log-level set debug"))
def cli() -> None:
    """Show or change how much is logged: by the daemon (v1) or the SPDK service (v2)."""


@cli.command(epilog=examples("log-level get", "log-level get --data-engine v2"))
@data_engine_option()
@connected
async def get(client: "Client", data_engine: "DataEngine") -> None:
    """Print the level below which nothing is logged."""
    click.echo(await client.log_level(data_engine))


@cli.command("set", epilog=examples("log-level set debug", "log-level set info --data-engine v2"))
@click.argument("level")
@data_engine_option()
@connected
async def set_(client: "Client", level: str, data_engine: "DataEngine") -> None:
    """Log what is at least as important as LEVEL, until the daemon ends.

    Levels are debug, info, warning, error and so on; the daemon says which when it knows another.
    """
    await client.set_log_level(level, data_engine)
