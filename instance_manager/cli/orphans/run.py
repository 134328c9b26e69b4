"""`instance-manager orphans run`: run the agent that looks for orphans."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.orphans.context import (
    Target,
    check_targets,
    client_of,
    owners_option,
    records_option,
    target_option,
)
from instance_manager.cli.parameters import examples
from instance_manager.cli.root import Globals
from instance_manager.cli.units import Seconds


@click.command(
    epilog=examples(
        "orphans run --target node-1=tcp://localhost:8500 --owners owners.json",
        "orphans run --target im-a=tcp://10.0.0.1:8500 --target im-b=tcp://10.0.0.2:8500 --owners /owners "
        "--auto-delete",
    )
)
@target_option(required=True)
@owners_option(required=True)
@records_option
@click.option(
    "--wait-interval",
    type=Seconds(0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time from the first suspicion until an instance is judged.",
)
@click.option(
    "--resync",
    type=Seconds(0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two full checks, whether or not anything has changed.",
)
@click.option(
    "--auto-delete",
    is_flag=True,
    help="Delete orphans after the grace period. Without it, nothing is deleted unless somebody asks.",
)
@click.option(
    "--grace",
    type=Seconds(0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long --auto-delete leaves a new orphan alone.",
)
@click.option(
    "--max-per-minute",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Largest number of orphans declared in a minute. If there are more, the owners may be wrong, and "
    "none is declared.",
)
@click.pass_obj
def run(
    options: Globals,
    targets: Sequence[Target],
    owners: Path,
    records: Path,
    wait_interval: float,
    resync: float,
    auto_delete: bool,
    grace: float,
    max_per_minute: int,
) -> None:
    """Look for orphans until SIGTERM.

    For each instance that seems to have no owner, the agent reads the instance, its owner, and the instance
    again, past every cache. Only if all three reads agree does it record an orphan. Without --auto-delete
    nothing is deleted unless somebody asks for it.
    """
    if not options.debug:
        # Otherwise gRPC's own messages appear between the lines of JSON.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from instance_manager.orphans import run as agent
    from instance_manager.orphans.interfaces import CannotReadError
    from instance_manager.orphans.settings import OrphanSettings
    from instance_manager.platform import logging

    check_targets(targets)
    settings = agent.AgentSettings(
        targets={target.name: target.url for target in targets},
        owners=owners.absolute(),
        records=records,
        orphans=OrphanSettings(
            confirm_delay=wait_interval,
            resync=resync,
            auto_deletion=auto_delete,
            grace=grace,
            max_per_minute=max_per_minute,
        ),
    )
    logging.configure(debug=options.debug)
    try:
        agent.run(settings, lambda url: client_of(url, options.tls))
    except (CannotReadError, agent.MisnamedError) as error:
        raise Failure(str(error), ExitCode.FAILURE) from error
