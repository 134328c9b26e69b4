"""`process watch` and `instance watch`: one line per change."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.render import as_dict, coloured, printable
from instance_manager.cli.units import moment
from instance_manager.cli.views import engine_of, state_of

if TYPE_CHECKING:
    from instance_manager.client import Client
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse
    from instance_manager.pb.imrpc.instance_pb2 import InstanceResponse

BEGUN_SECONDS = 5.0
"""After which a watch counts as begun: the original instance manager says so only with the first change."""


def announce(client: "Client") -> None:
    """Print on a terminal that the watch has started."""
    if sys.stderr.isatty():
        click.echo(f"Watching {client.url}, Ctrl-C ends it", err=True)


async def follow_processes(client: "Client", *, as_text: bool, local: bool) -> None:
    """Print each change of a process as it comes.

    Raises:
        Failure: when the daemon ends.
    """
    changes = await client.process_watch().accepted(BEGUN_SECONDS)
    announce(client)
    async for change in changes:
        click.echo(_line(change, local=local) if as_text else json.dumps(as_dict(change)))
    raise _ending()


async def follow_instances(client: "Client", *, as_text: bool, local: bool) -> None:
    """Print the differences in the list of instances, each time the daemon reports a change.

    Raises:
        Failure: when the daemon ends.
    """
    pings = await client.instance_watch().accepted(BEGUN_SECONDS)
    known = await client.instance_list()
    announce(client)
    async for _ in pings:
        listed = await client.instance_list()
        for change in differences(known, listed):
            kind = f"{engine_of(change)} {change.spec.type:<15}"
            click.echo(_line(change, kind, local=local) if as_text else json.dumps(as_dict(change)))
        known = listed
    raise _ending()


def differences(
    before: "Mapping[str, InstanceResponse]", after: "Mapping[str, InstanceResponse]"
) -> "Iterator[InstanceResponse]":
    """Yield every instance that is new, changed, or gone (with deleted=true)."""
    for name, old in before.items():
        new = after.get(name)
        if new is None or new.status.uuid != old.status.uuid:
            old.deleted = True
            yield old
    for name, new in after.items():
        if before.get(name) != new:
            yield new


def _ending() -> Failure:
    return Failure("cannot watch any longer: the instance manager is ending", ExitCode.UNREACHABLE)


def _line(change: "ProcessResponse | InstanceResponse", *more: str, local: bool) -> str:
    error = printable(change.status.error_msg)
    state = state_of(change)
    words = (
        moment(time.time(), local=local),
        f"{change.spec.name:<24}",
        *more,
        coloured(f"{state:<8}", state),
        change.status.uuid,
        error,
    )
    return "  ".join(words).rstrip()
