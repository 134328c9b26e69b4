"""`instance-manager doctor`: check a node for common problems."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from instance_manager.cli.connection import call
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.render import on_terminal
from instance_manager.cli.root import Globals
from instance_manager.platform import contract

if TYPE_CHECKING:
    from instance_manager.app.containment import ContainmentStatus
    from instance_manager.client import Client
    from instance_manager.doctor import Finding

EXAMPLE = """
\b
Examples:
  instance-manager doctor
  instance-manager doctor --state-dir /run/instance-manager --logs-dir /var/log/instances
  instance-manager doctor -o json
"""

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command(epilog=EXAMPLE)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=Path("/run/instance-manager"),
    envvar="INSTANCE_MANAGER_DAEMON_STATE_DIR",
    show_default=True,
    help="The daemon's --state-dir.",
)
@click.option(
    "--logs-dir",
    type=click.Path(path_type=Path),
    default=Path("/var/log/instances"),
    envvar="INSTANCE_MANAGER_DAEMON_LOGS_DIR",
    show_default=True,
    help="The daemon's --logs-dir.",
)
@click.option(
    "--port-range",
    default="10000-20000",
    envvar="INSTANCE_MANAGER_DAEMON_PORT_RANGE",
    show_default=True,
    metavar="FIRST-LAST",
    help="The daemon's --port-range.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    help="How to show the findings.  [default: table on a terminal, otherwise json]",
)
@click.pass_obj
def cli(options: Globals, state_dir: Path, logs_dir: Path, port_range: str, output: str | None) -> None:
    """Check a node for common problems, and say what to do about each.

    Run it on the daemon's machine, with the daemon's options. It changes nothing. The exit code is 1 if
    something is wrong, and 0 if there are only warnings.
    """
    from instance_manager.core.errors import InvalidArgumentError
    from instance_manager.core.ports import parse_port_range
    from instance_manager.doctor import Severity, examine, gather
    from instance_manager.platform import logging

    logging.configure(debug=options.debug)

    try:
        span = parse_port_range(port_range)
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from error
    tls = options.tls
    answers, reason = _ask()
    findings = examine(
        gather(
            state_dir,
            logs_dir,
            span,
            listed=answers.listed,
            failing=answers.failing,
            metrics=answers.parts.get(contract.METRICS_HEALTH, True),
            spdk=answers.parts.get(contract.SPDK_HEALTH),
            containment=answers.containment,
            daemon=reason,
            tls_dir=None if tls.absent else tls.folder,
            peer_name=tls.peer_name,
        )
    )
    _show(findings, output or ("table" if on_terminal() else "json"))
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise click.exceptions.Exit(ExitCode.FAILURE)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What the daemon has answered."""

    listed: dict[str, tuple[int, int]] | None = None
    """The ports of each listed process by UUID; None without an answer."""
    failing: Sequence[str] = ()
    """The names of its background work that fails."""
    parts: Mapping[str, bool] = field(default_factory=dict)
    """Whether each other part of it is healthy, by name."""
    containment: "ContainmentStatus | None" = None
    """None if it is of an earlier version, which does not tell."""


def _ask() -> tuple[_Answers, str]:
    """Return what the daemon answers, and why it does not."""

    async def ask(client: "Client") -> _Answers:
        statuses = [process.status for process in (await client.process_list()).values()]
        listed = {status.uuid: (status.port_start, status.port_end) for status in statuses}
        works = [
            name
            for name in contract.BACKGROUND_WORKS
            if await _healthy(client, f"{contract.BACKGROUND_HEALTH}/{name}") is False
        ]
        parts = {
            name: await _healthy(client, name) for name in (contract.METRICS_HEALTH, contract.SPDK_HEALTH)
        }
        known = {name: each for name, each in parts.items() if each is not None}
        return _Answers(listed, works, known, await _containment(client))

    try:
        return call(ask), ""
    except Failure as failure:
        return _Answers(), str(failure)


async def _containment(client: "Client") -> "ContainmentStatus | None":
    """Return the daemon's containment; None if it is of an earlier version, which does not tell."""
    import grpc
    import grpc.aio

    from instance_manager.app.containment import ContainmentStatus, Kind

    try:
        found = (await client.status()).containment
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise
    return ContainmentStatus(
        Kind(found.kind),
        found.reason,
        found.folder,
        tuple(found.controllers),
        found.controllers_missing,
        limits_refused=dict(found.limits_refused),
        failures=dict(found.failures),
    )


async def _healthy(client: "Client", part: str) -> bool | None:
    """Return whether a part of the daemon is healthy; None if it has no such part."""
    import grpc
    import grpc.aio

    try:
        return await client.health(part) == "SERVING"
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def _show(findings: list["Finding"], form: str) -> None:
    if form == "json":
        rows = [
            {"check": f.check, "severity": f.severity, "message": f.message, "hint": f.hint} for f in findings
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for finding in findings:
        mark = click.style(f"{finding.severity:<8}", fg=_COLOURS[finding.severity])
        click.echo(f"{mark} {finding.check}: {finding.message}")
        if finding.hint:
            click.echo(f"{'':<8}   → {finding.hint}")
