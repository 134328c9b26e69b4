"""`instance-manager version`: the versions of this program and of the daemon."""

import json
from typing import TYPE_CHECKING, Any

import click

from instance_manager.cli.connection import call
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.render import as_text

if TYPE_CHECKING:
    from instance_manager.pb.imrpc.imrpc_pb2 import VersionResponse

EXAMPLE = """
\b
Examples:
  instance-manager version
  instance-manager version --client
  instance-manager version -o json
"""


@click.command(epilog=EXAMPLE)
@click.option("--client", "--client-only", "client_only", is_flag=True, help="Do not ask the daemon.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    help="Output format.  [default: text on a terminal, otherwise json]",
)
def cli(client_only: bool, output: str | None) -> None:
    """Show the versions of this program and of the daemon."""
    from instance_manager.api.version import manager_versions

    versions: dict[str, VersionResponse | None] = {"client": manager_versions()}
    failure = None
    if not client_only:
        try:
            versions["daemon"] = call(lambda client: client.version())
        except Failure as error:
            versions["daemon"], failure = None, error
    click.echo(_text(versions, failure) if as_text(output) else _json(versions))
    if failure is not None:
        raise failure


def _json(versions: "dict[str, VersionResponse | None]") -> str:
    """Return the versions under the keys of the Go program."""
    keys = {"client": "clientVersion", "daemon": "serverVersion"}
    return json.dumps(
        {keys[who]: version and _fields(version) for who, version in versions.items()}, indent=2
    )


def _fields(version: "VersionResponse") -> dict[str, Any]:
    return {field.name: getattr(version, field.name) for field in version.DESCRIPTOR.fields}


def _text(versions: "dict[str, VersionResponse | None]", failure: Failure | None) -> str:
    lines = []
    for who, version in versions.items():
        if version is None:
            unreachable = failure is not None and failure.code is ExitCode.UNREACHABLE
            lines.append(f"{who}: {'unreachable' if unreachable else 'unknown'}")
            continue
        build = ", ".join(
            f"{what} {value}"
            for what, value in (("commit", version.gitCommit), ("built", version.buildDate))
            if value
        )
        api = f"API {version.instanceManagerAPIMinVersion} to {version.instanceManagerAPIVersion}"
        lines.append(f"{who}: {', '.join(filter(None, (version.version, build, api)))}")
    return "\n".join(lines)
