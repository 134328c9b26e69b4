"""The daemon's options about the v2 data engine."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

SPDK_OFFSET = 4
"""The SPDK service is looked for on the process manager's port plus this."""
DEFAULT_PORT = 8504

Command = TypeVar("Command", bound=Callable[..., Any])


def spdk_options(command: Command) -> Command:
    """Give a command the options that say where the SPDK service is."""
    for option in (
        click.option(
            "--spdk-port-range",
            default="20001-30000",
            show_default=True,
            metavar="FIRST-LAST",
            help="Taken for the sake of existing manifests: the SPDK service hands out its ports itself.",
        ),
        click.option(
            "--spdk-service-address",
            show_default="localhost, the port of --listen + 4",
            metavar="ADDRESS",
            help="HOST:PORT or unix://PATH of the SPDK service.",
        ),
        click.option(
            "--spdk-enabled",
            is_flag=True,
            default=False,
            help="Serve the v2 data engine, whose instances the SPDK service holds.",
        ),
    ):
        command = option(command)
    return command


def spdk_target(listen_port: int, address: str | None, port_range: str, *, enabled: bool) -> str | None:
    """Return where the SPDK service is, None if v2 is not to be served.

    Raises:
        InvalidArgumentError: if an option is no address or no range.
    """
    from instance_manager.api.server import parse_address
    from instance_manager.core.ports import parse_port_range

    parse_port_range(port_range)
    default = f"localhost:{listen_port + SPDK_OFFSET if listen_port else DEFAULT_PORT}"
    target = parse_address(address or default).target
    return target if enabled else None
