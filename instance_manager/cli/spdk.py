"""The daemon's options for the v2 data engine."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

SPDK_OFFSET = 4
"""By default, the SPDK service is expected on the port of --listen plus this."""

Command = TypeVar("Command", bound=Callable[..., Any])


def spdk_options(command: Command) -> Command:
    """Give a command the options that say where the SPDK service is."""
    for option in (
        click.option(
            "--spdk-port-range",
            default="20001-30000",
            show_default=True,
            metavar="FIRST-LAST",
            help="Accepted for existing manifests; the SPDK service allocates its own ports.",
        ),
        click.option(
            "--spdk-service-address",
            show_default="localhost, the port of --listen + 4",
            metavar="ADDRESS",
            help="HOST:PORT or unix://PATH of the SPDK service. Those of other nodes are expected on "
            "the same port.",
        ),
        click.option(
            "--spdk-enabled",
            is_flag=True,
            default=False,
            help="Serve the v2 data engine, whose instances live in the SPDK service.",
        ),
    ):
        command = option(command)
    return command


def spdk_target(listen_port: int, address: str | None, port_range: str, *, enabled: bool) -> str | None:
    """Return the gRPC target of the SPDK service, None if v2 is not to be served.

    Raises:
        InvalidArgumentError: if the address or the port range is malformed.
    """
    from instance_manager.core.addresses import parse_address
    from instance_manager.core.ports import parse_port_range
    from instance_manager.core.spdk import DEFAULT_PORT

    parse_port_range(port_range)
    if not (enabled or address):
        return None
    default = f"localhost:{listen_port + SPDK_OFFSET if listen_port else DEFAULT_PORT}"
    target = parse_address(address or default).target
    return target if enabled else None
