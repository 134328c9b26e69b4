"""`instance-manager process`: the processes of a node."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from instance_manager.cli import exit_codes, render
from instance_manager.cli.connection import complete_names, connected

if TYPE_CHECKING:
    from instance_manager.client import Client
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessSpec

ALIASES = {"ls": "list"}

Command = Callable[..., None]


class AliasGroup(click.Group):
    """A group whose commands have other names too, which its help does not repeat."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by any of its names."""
        return super().resolve_command(ctx, [ALIASES.get(args[0], args[0]), *args[1:]])


def examples(*lines: str, before: str = "") -> str:
    """Return the end of a command's help."""
    shown = "\n".join(f"  instance-manager process {line}" for line in lines)
    return f"{before}\n\n\b\nExamples:\n{shown}"


@click.group(
    cls=AliasGroup,
    epilog=examples(
        "list", "create --name r1 --binary /bin/sleep -- 100", "delete r1", before=exit_codes.table()
    ),
)
def cli() -> None:
    """Create, list, watch, replace and delete processes."""


def name_parameters(command: Command) -> Command:
    """Give a command the name of a process, as an argument or as --name."""

    @click.argument("argument", metavar="[NAME]", required=False, shell_complete=complete_names)
    @click.option("--name", metavar="NAME", shell_complete=complete_names, help="Name of the process.")
    @functools.wraps(command)
    def with_name(*, argument: str | None, name: str | None, **others: Any) -> None:
        given = {each for each in (argument, name) if each is not None}
        if len(given) != 1:
            raise click.UsageError("cannot tell which process is meant: give one NAME, or --name NAME")
        command(name=given.pop(), **others)

    return with_name


def spec_parameters(command: Command) -> Command:
    """Give a command all that tells what to run; it takes it as `spec`."""

    @click.option(
        "--name", required=True, metavar="NAME", shell_complete=complete_names, help="Name of the process."
    )
    @click.option(
        "--binary",
        required=True,
        type=click.Path(),
        help="Path of the program, on the daemon's machine.",
    )
    @click.option(
        "--port-count",
        type=click.IntRange(0, 65535),
        default=0,
        show_default=True,
        metavar="COUNT",
        help="How many ports in a row it needs.",
    )
    @click.option(
        "--port-args",
        multiple=True,
        metavar="ARG",
        help="ARG with a port appended, then split at each comma, goes to the end of the arguments; the n-th "
        "--port-args gets the n-th port.  [default: none]",
    )
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    @functools.wraps(command)
    def with_spec(
        *, name: str, binary: str, port_count: int, port_args: list[str], args: list[str], **others: Any
    ) -> None:
        from instance_manager.pb.imrpc import imrpc_pb2 as pb

        try:
            spec = pb.ProcessSpec(
                name=name, binary=binary, port_count=port_count, port_args=port_args, args=args
            )
        except ValueError as error:
            raise click.UsageError(f"cannot send an argument that is not UTF-8: {error}") from error
        command(spec=spec, **others)

    return with_spec


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "create --name r1 --binary /bin/sleep -- 100",
        'create --name r2 --binary /usr/bin/replica --port-count 2 --port-args "--listen,0.0.0.0:" -- /data',
    ),
)
@spec_parameters
@render.output_option
@connected
async def create(client: "Client", spec: "ProcessSpec", output: str | None) -> None:
    """Start a process.

    ARGS, best after --, are the arguments of the program. The answer comes at once, in state `starting`, or
    `error` if the program cannot be executed; `process wait` tells when it runs.
    """
    render.show(await client.process_create(spec), output)


@cli.command(epilog=examples("delete r1", "delete --name r1 --uuid 0e2cbdd9-1c57-4b1f-a7a7-6a9e7d9e9a00"))
@name_parameters
@click.option(
    "--uuid", default="", metavar="UUID", help="Delete it only if it has this UUID.  [default: any]"
)
@render.output_option
@connected
async def delete(client: "Client", name: str, uuid: str, output: str | None) -> None:
    """Begin to end a process and take it off the list.

    The answer comes at once; `process wait --for deleted` tells when it has ended.
    """
    render.show(await client.process_delete(name, uuid), output)


@cli.command(epilog=examples("get r1", "get --name r1 -o yaml"))
@name_parameters
@render.output_option
@connected
async def get(client: "Client", name: str, output: str | None) -> None:
    """Show one process."""
    render.show(await client.process_get(name), output)


@cli.command("list", epilog=examples("list", "ls -o wide", "list -o name"))
@render.output_option
@connected
async def list_(client: "Client", output: str | None) -> None:
    """Show every process, by name; `ls` for short."""
    render.show(await client.process_list(), output)


@cli.command(epilog=examples("log r1", "log r1 --tail 10 -f"))
@name_parameters
@click.option("-f", "--follow", is_flag=True, help="Go on until the process is deleted.")
@click.option(
    "--tail", type=click.IntRange(0), metavar="LINES", help="Begin with the last LINES lines.  [default: all]"
)
@connected
async def log(client: "Client", name: str, follow: bool, tail: int | None) -> None:
    """Show what a process has written to its output; it may be gone already."""
    out = sys.stdout.buffer
    async for line in client.process_log(name, follow=follow, tail=tail):
        out.write(line.encode(errors="replace") + b"\n")
        if follow:
            out.flush()
    out.flush()


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples("replace --name r1 --binary /usr/bin/replica-v2 -- /data"),
)
@spec_parameters
@click.option(
    "--terminate-signal",
    default="SIGHUP",
    show_default=True,
    metavar="SIGNAL",
    help="What ends the old process; the daemon accepts no other.",
)
@render.output_option
@connected
async def replace(client: "Client", spec: "ProcessSpec", terminate_signal: str, output: str | None) -> None:
    """Put a process with another program in the place of a running one.

    The answer comes when the new process runs (within 60 s); until then the old one has the name.
    """
    render.show(await client.process_replace(spec, terminate_signal), output)


@cli.command(epilog=examples("wait r1 --for running", "wait --name r1 --for deleted --timeout 120"))
@name_parameters
@click.option(
    "--for",
    "goal",
    type=click.Choice(["running", "stopped", "deleted"]),
    required=True,
    help="What to wait for; a process that is gone is stopped too.",
)
@click.option(
    "--uuid", default="", metavar="UUID", help="UUID of the process.  [default: of the one that has the name]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@connected
async def wait(client: "Client", name: str, goal: str, uuid: str, timeout: float) -> None:  # noqa: ASYNC109
    """Wait until a process has come to a state.

    It fails at once, with exit code 8, when the state cannot come any more: a process that has ended will
    not run, one in state `error` will not be stopped. A lost connection is made again until the timeout.
    """
    from instance_manager.cli.wait import Goal, Waiter

    waiter = Waiter(name, Goal(goal), uuid)
    await waiter.wait(client, timeout)
    click.echo(f"{name} {waiter.seen}")


@cli.command(epilog=examples("watch", "watch -o json | jq .status.state"))
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    help="A line of text or of JSON per change.  [default: text on a terminal, otherwise json]",
)
@connected
async def watch(client: "Client", output: str | None) -> None:
    """Show every change from now on, until Ctrl-C."""
    from instance_manager.cli.watch import follow

    await follow(client, as_text=output == "text" or (output is None and render.on_terminal()))
