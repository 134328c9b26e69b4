"""`instance-manager process watch`: a line per change."""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.render import as_dict, coloured, printable, state_of

if TYPE_CHECKING:
    from instance_manager.client import Client
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse


async def follow(client: "Client", *, as_text: bool) -> None:
    """Print each change as it comes.

    Raises:
        Failure: when the daemon ends.
    """
    changes = await client.process_watch().begun()
    if sys.stderr.isatty():
        click.echo(f"Watching {client.url}, Ctrl-C ends it", err=True)
    async for change in changes:
        click.echo(_as_text(change) if as_text else json.dumps(as_dict(change)))
    raise Failure("cannot watch any longer: the instance manager is ending", ExitCode.UNREACHABLE)


def _as_text(change: "ProcessResponse") -> str:
    time = datetime.now().astimezone().strftime("%H:%M:%S")
    error = printable(change.status.error_msg)
    words = (time, f"{change.spec.name:<24}", coloured(state_of(change)), change.status.uuid, error)
    return "  ".join(words).rstrip()
