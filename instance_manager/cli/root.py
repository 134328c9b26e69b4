"""The root of the command line: global options, and the commands by name."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass

import click

DEFAULT_URL = "tcp://localhost:8500"

COMMANDS = {
    "daemon": ("daemon", "Serve: start, supervise and end processes over gRPC."),
    "health": ("health", "Ask whether the daemon serves."),
    "process": ("process", "Create, list, watch, replace and delete processes."),
    "stub": ("stub", "Run a stand-in for an engine or a replica (for tests)."),
    "version": ("version", "Show the versions of this program and of the daemon."),
}
"""Command -> (module in this package that has it as `cli`, one-line help)."""


@dataclass(frozen=True, slots=True)
class Globals:
    """What every command may need of the global options."""

    url: str
    debug: bool


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command there is, without importing any."""
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table: `--help` imports nothing."""
        del ctx
        rows: Iterable[tuple[str, str]] = ((name, COMMANDS[name][1]) for name in sorted(COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(list(rows))


@click.group(
    cls=LazyGroup,
    context_settings={"auto_envvar_prefix": "INSTANCE_MANAGER", "help_option_names": ["-h", "--help"]},
)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    metavar="URL",
    help="The daemon to talk to: tcp://HOST:PORT or unix://PATH.",
)
@click.option("--debug", is_flag=True, help="Log everything; show tracebacks.")
@click.version_option(package_name="instance-manager", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context, url: str, debug: bool) -> None:
    """Start and supervise the engine and replica processes of a storage node."""
    ctx.obj = Globals(url=url, debug=debug)


def main() -> None:
    """Run the command line; the entry point of both console scripts."""
    root(prog_name=None)
