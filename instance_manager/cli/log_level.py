"""`instance-manager log-level`: the log level of the daemon or the SPDK service."""

from typing import TYPE_CHECKING

import click

from instance_manager.cli.connection import connected
from instance_manager.cli.parameters import data_engine_option, examples

if TYPE_CHECKING:
    from instance_manager.client import Client, DataEngine


@click.group(epilog=examples("log-level get", "log-level set debug"))
def cli() -> None:
    """Show or change the log level of the daemon (v1) or the SPDK service (v2)."""


@cli.command(epilog=examples("log-level get", "log-level get --data-engine v2"))
@data_engine_option()
@connected
async def get(client: "Client", data_engine: "DataEngine") -> None:
    """Print the log level."""
    click.echo(await client.log_level(data_engine))


@cli.command("set", epilog=examples("log-level set debug", "log-level set info --data-engine v2"))
@click.argument("level")
@data_engine_option()
@connected
async def set_(client: "Client", level: str, data_engine: "DataEngine") -> None:
    """Set the log level until the daemon ends, or its guard if it has one.

    LEVEL is trace, debug, info, warning, error or critical.
    """
    await client.set_log_level(level, data_engine)
