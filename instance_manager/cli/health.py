"""`instance-manager health`: ask whether the daemon serves; made for the health check of a container."""

import asyncio
from typing import TYPE_CHECKING

import click

from instance_manager.cli.connection import connected
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.units import Seconds

if TYPE_CHECKING:
    from instance_manager.client import Client

EXAMPLE = """
\b
Examples:
  instance-manager health
  instance-manager health --service ProcessManagerService --timeout 1
  instance-manager --url unix:///run/instance-manager.sock health
"""


@click.command(epilog=EXAMPLE)
@click.option(
    "--service", default="", metavar="NAME", help="Name of a gRPC service.  [default: the daemon as a whole]"
)
@click.option(
    "--timeout",
    type=Seconds(0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer.",
)
@connected
async def cli(client: "Client", service: str, timeout: float) -> None:  # noqa: ASYNC109 - it is an option
    """Ask whether the daemon serves.

    Prints SERVING and exits with 0, or prints NOT_SERVING and exits with 1. `process --help` lists the exit
    codes of other failures.
    """
    import grpc

    try:
        async with asyncio.timeout(timeout):
            status = await client.health(service)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise Failure(
            f"cannot report the health of {service}: the daemon has no such service (NOT_FOUND)",
            ExitCode.NOT_FOUND,
        ) from error
    click.echo(status)
    if status != "SERVING":
        raise click.exceptions.Exit(ExitCode.FAILURE)
