"""The root of the command line: global options, and the commands by name."""

import errno
import gc
import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.tls import TlsChoice, is_required, tls_options
from instance_manager.core.certificates import PEER_NAME
from instance_manager.platform import descriptors, signals

DEFAULT_URL = "tcp://localhost:8500"

EXAMPLE = """
\b
Examples:
  instance-manager daemon
  instance-manager process list
  instance-manager --url tcp://node-1:8500 process watch
"""

COMMANDS = {
    "completion": ("completion", "Print the completion script for a shell."),
    "daemon": ("daemon", "Run the daemon: start, supervise and stop processes over gRPC."),
    "events": ("events", "Show past changes, and follow new ones."),
    "guard": ("guard", "Run the daemon, and restart it when it dies."),
    "doctor": ("doctor", "Check a node for common problems."),
    "health": ("health", "Ask whether the daemon serves."),
    "instance": ("instance", "Create, list, watch, replace and delete instances of both data engines."),
    "log-level": ("log_level", "Show or change how much is logged."),
    "orphans": ("orphans.commands", "Find, explain and delete instances that nothing owns."),
    "process": ("process", "Create, list, watch, replace and delete processes."),
    "stub": ("stub", "Run a stand-in for an engine or a replica (for tests)."),
    "version": ("version", "Show the versions of this program and of the daemon."),
}
"""By command: the module of this package that defines it as `cli`, and its one-line help."""


@dataclass(frozen=True, slots=True)
class Globals:
    """The global options that commands use."""

    url: str
    debug: bool
    tls: TlsChoice


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands without importing any."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"instance_manager.cli.{COMMANDS[cmd_name][0]}").cli
        assert isinstance(command, click.Command)  # noqa: S101 - a programming error, not input
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; text that is not UTF-8 cannot be sent, nor stored, nor used as a name."""
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError as error:
            raise click.UsageError(f"cannot use {error.object!a}: it is not UTF-8") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table: `--help` imports nothing."""
        del ctx
        rows: Iterable[tuple[str, str]] = ((name, COMMANDS[name][1]) for name in sorted(COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(list(rows))


def _use_defaults(ctx: click.Context, _: click.Parameter, file: str | None) -> None:
    """Read the defaults of all commands from a file."""
    if file is not None:
        from instance_manager.cli.config import read_defaults

        ctx.default_map = read_defaults(file, ctx)


@click.group(
    cls=LazyGroup,
    epilog=EXAMPLE,
    context_settings={"auto_envvar_prefix": "INSTANCE_MANAGER", "help_option_names": ["-h", "--help"]},
)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    metavar="URL",
    help="The daemon to talk to: tcp://HOST:PORT or unix://PATH.",
)
@click.option(
    "--config",
    type=click.Path(),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_use_defaults,
    help="YAML file with default values of options, see docs/cli.md.  [default: none]",
)
@tls_options(peer_name=PEER_NAME)
@click.option("--debug", is_flag=True, help="Log everything; show tracebacks.")
@click.version_option(package_name="instance-manager", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context, url: str, tls_dir: Path | None, tls_peer_name: str, debug: bool) -> None:
    """Start and supervise the engine and replica processes of a Longhorn storage node."""
    # The daemon lets them through when it can handle them.
    (signals.hold if ctx.invoked_subcommand == "daemon" else signals.release)()
    tls = TlsChoice(tls_dir, tls_peer_name, required=is_required(ctx))
    ctx.obj = Globals(url=url, debug=debug, tls=tls)


def main() -> None:
    """Run the command line; the entry point of both console scripts."""
    descriptors.open_standard()
    try:
        status = root.main(standalone_mode=False) or 0
        sys.stdout.flush()
    except (Failure, click.ClickException) as error:
        status = _report(error)
    except click.Abort:
        status = ExitCode.INTERRUPTED
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.ENOSPC}:
            raise
        # Nobody reads the output any more, or the disk is full; the last flush must not stumble over it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.ENOSPC:
            click.echo(f"Error: cannot write the output: {error.strerror}", err=True)
        status = ExitCode.FAILURE
    gc.freeze()  # spares the interpreter a last garbage collection, a tenth of the run time
    sys.exit(status)


def _report(error: Failure | click.ClickException) -> int:
    """Tell on stderr why a command has failed, and return its exit code."""
    code = error.code if isinstance(error, Failure) else error.exit_code
    if not sys.stderr.isatty() and _is_service(sys.argv[1:]):
        import structlog

        from instance_manager.platform import logging

        logging.configure(debug=False)
        message = str(error) if isinstance(error, Failure) else error.format_message()
        structlog.get_logger(__name__).error(
            "cannot start", reason=" ".join(message.split()), exit_code=int(code)
        )
    elif isinstance(error, Failure):
        click.echo(f"Error: {error}", err=True)
    else:
        error.show()
    return code


def _is_service(arguments: list[str]) -> bool:
    """Return whether a command line runs a service, whose lines on stderr are JSON for a log collector."""
    words = iter(arguments)
    options = {name: option for option in root.params for name in option.opts}
    for word in words:
        if not word.startswith("-"):
            return [word, *words][:2] == ["orphans", "run"] or word == "daemon"
        option = options.get(word)
        if isinstance(option, click.Option) and not option.is_flag:
            next(words, "")
    return False
