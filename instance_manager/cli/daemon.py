"""`instance-manager daemon`: run the daemon."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from instance_manager.cli.containment import containment_options
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.root import Globals
from instance_manager.cli.spdk import spdk_options, spdk_target
from instance_manager.cli.tls import TlsChoice, is_required, tls_options
from instance_manager.cli.units import Seconds, parse_duration, parse_size
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.platform import contract

if TYPE_CHECKING:
    from instance_manager.daemon import TlsSettings

EXAMPLE = """
\b
Examples:
  instance-manager daemon
  instance-manager daemon --listen 0.0.0.0:8500 --tls-dir /etc/instance-manager/tls
  instance-manager daemon --listen unix:///run/instance-manager.sock --port-range 10000-10999
"""


@click.command(epilog=EXAMPLE)
@click.option(
    "--listen",
    default="localhost:8500",
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT, or unix://PATH. The daemon takes PORT to PORT+3; without HOST, on every address.",
)
@click.option(
    "--logs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/log/instances"),
    show_default=True,
    help="Directory of the processes' log files.",
)
@click.option(
    "--port-range",
    default="10000-20000",
    show_default=True,
    metavar="FIRST-LAST",
    help="Ports to hand out to processes, both ends included.",
)
@click.option(
    "--stop-timeout",
    type=Seconds(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="When a process is deleted: time from SIGINT to SIGKILL.",
)
@click.option(
    "--ready-timeout",
    type=Seconds(0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time in which the health service of a process with ports must say SERVING.",
)
@click.option(
    "--replace-timeout",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="The same for a process that is to replace another; less if the caller waits for less.",
)
@click.option(
    "--shutdown-grace",
    type=Seconds(0),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="When the daemon itself stops: time from SIGINT to its processes to SIGKILL.",
)
@click.option(
    "--log-max-size",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="MIB",
    help="Largest size of a log file; the oldest part of a larger one is dropped.",
)
@click.option(
    "--log-keep-age",
    type=parse_duration,
    default="7d",
    show_default=True,
    metavar="DURATION",
    help="Remove the log of an instance so long after it is gone, such as 12h or 7d; 0 for never.",
)
@click.option(
    "--log-keep-size",
    type=parse_size,
    default="1Gi",
    show_default=True,
    metavar="SIZE",
    help="Remove the oldest logs of instances that are gone when all of these are larger, such as 500Mi; "
    "0 for never. Those of the last 10 that ended in error go last.",
)
@click.option(
    "--echo-logs/--no-echo-logs",
    default=False,
    show_default=True,
    help="Repeat the processes' log lines on stdout, each with the name of its process.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(contract.STATE_DIR),
    show_default=True,
    help="Directory of the journal, from which the next daemon takes the processes over.",
)
@click.option(
    "--on-stop",
    type=click.Choice(["terminate", "leave"]),
    default="terminate",
    show_default=True,
    help="What SIGTERM does to the processes: end them, or leave them to the next daemon.",
)
@click.option(
    "--binary-root",
    "binary_roots",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Only start programs below this directory, links resolved; may be given several times.",
    show_default="any program",
)
@containment_options
@click.option(
    "--max-processes",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    metavar="COUNT",
    help="Largest number of processes, including ended ones that are still listed.",
)
@click.option(
    "--max-streams",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="COUNT",
    help="Largest number of watches and logs streamed at once.",
)
@click.option(
    "--metrics-listen",
    default="127.0.0.1:9500",
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT of /metrics, /healthz and /readyz over HTTP; empty for none.",
)
@click.option(
    "--metrics-by-instance/--no-metrics-by-instance",
    default=False,
    show_default=True,
    help="Tell in metrics what each instance uses: a time series for each, under its name.",
)
@spdk_options
@tls_options(peer_name=None)
@click.option(
    "--insecure",
    is_flag=True,
    default=False,
    help="Without certificates, allow plain text on an address that other machines can reach.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    listen: str,
    logs_dir: Path,
    port_range: str,
    stop_timeout: float,
    ready_timeout: float,
    replace_timeout: float,
    shutdown_grace: float,
    log_max_size: int,
    log_keep_age: int,
    log_keep_size: int,
    echo_logs: bool,
    state_dir: Path,
    on_stop: str,
    binary_roots: tuple[Path, ...],
    containment: str,
    cgroup_root: Path | None,
    instance_memory_max: int | None,
    instance_pids_max: int | None,
    instance_cpu_weight: int | None,
    max_processes: int,
    max_streams: int,
    metrics_listen: str,
    metrics_by_instance: bool,
    spdk_enabled: bool,
    spdk_service_address: str | None,
    spdk_port_range: str,
    tls_dir: Path | None,
    tls_peer_name: str | None,
    insecure: bool,
) -> None:
    """Run the daemon: start, supervise and stop processes over gRPC.

    SIGTERM stops every process and then the daemon; a second SIGTERM does not wait for the grace period.
    """
    # structlog loads rich where it is installed, for tracebacks in colour: 4 MiB that no daemon needs.
    sys.modules["rich"] = None  # type: ignore[assignment]
    # gRPC writes every failed handshake to stderr itself, and waits for whoever should read it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from instance_manager import daemon

    options: Globals = ctx.obj
    from instance_manager.adapters.cgroup import UnusableError
    from instance_manager.adapters.journal import StateDirError
    from instance_manager.adapters.metrics import metrics_address
    from instance_manager.adapters.process import PidfdUnsupportedError
    from instance_manager.api.listeners import listen_address, ports
    from instance_manager.app.supervisor import Settings
    from instance_manager.core.certificates import CertificateError
    from instance_manager.core.limits import InstanceLimits
    from instance_manager.core.log_retention import LogLimits
    from instance_manager.core.ports import parse_port_range
    from instance_manager.platform import logging
    from instance_manager.platform.listening import AddressError, AddressInUseError

    try:
        address = listen_address(listen)
        metrics = metrics_address(metrics_listen) if metrics_listen else None
        settings = daemon.DaemonSettings(
            listen=address,
            logs_dir=logs_dir,
            supervision=Settings(
                port_range=parse_port_range(port_range),
                stop_timeout=stop_timeout,
                ready_timeout=ready_timeout,
                replace_timeout=replace_timeout,
                max_processes=max_processes,
                reserved_ports=frozenset({*ports(address), metrics.port if metrics else 0}),
            ),
            shutdown_grace=shutdown_grace,
            log_max_size=log_max_size << 20,
            log_keep=LogLimits(log_keep_age, log_keep_size),
            echo_logs=echo_logs,
            state_dir=state_dir,
            on_stop=daemon.OnStop(on_stop),
            binary_roots=binary_roots,
            containment=daemon.ContainmentChoice(containment),
            cgroup_root=cgroup_root,
            limits=InstanceLimits(instance_memory_max, instance_pids_max, instance_cpu_weight),
            metrics_by_instance=metrics_by_instance,
            max_streams=max_streams,
            metrics_listen=metrics,
            spdk=spdk_target(address.port, spdk_service_address, spdk_port_range, enabled=spdk_enabled),
            tls=_tls(ctx, tls_dir, tls_peer_name, insecure=insecure),
            insecure=insecure,
        )
        logging.configure(debug=options.debug)
        status = daemon.run(settings)
    except (
        AddressInUseError,
        CertificateError,
        PidfdUnsupportedError,
        StateDirError,
        UnusableError,
    ) as error:
        # Not wrong usage: it may be over, or be repaired, while the guard keeps starting the daemon.
        raise Failure(str(error), ExitCode.FAILURE) from error
    except (AddressError, InvalidArgumentError) as error:
        raise click.UsageError(str(error)) from error
    sys.exit(status)


def _tls(
    ctx: click.Context, folder: Path | None, peer_name: str | None, *, insecure: bool
) -> "TlsSettings | None":
    """Combine the daemon's own TLS options with those given before the command; None for plain text."""
    from instance_manager.daemon import TlsSettings

    options: Globals = ctx.obj
    choice = TlsChoice(
        folder or options.tls.folder,
        peer_name or options.tls.peer_name,
        required=is_required(ctx) if folder else options.tls.required,
    )
    if choice.folder is None or (insecure and choice.absent):
        return None
    return TlsSettings(choice.folder, choice.peer_name)
