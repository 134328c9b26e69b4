"""`instance-manager process`: the processes of a node."""

import functools
from typing import TYPE_CHECKING, Any

import click

from instance_manager.cli import exit_codes, parameters, render
from instance_manager.cli.connection import complete_names, connected
from instance_manager.cli.parameters import examples
from instance_manager.cli.units import Seconds
from instance_manager.cli.views import PROCESSES
from instance_manager.cli.waiting import waits

if TYPE_CHECKING:
    from instance_manager.client import Client
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessSpec

NAME = parameters.name_parameters("process", complete_names)


@click.group(
    cls=parameters.AliasGroup,
    epilog=examples(
        "process list",
        "process create --name r1 --binary /bin/sleep -- 100",
        "process delete r1",
        before=exit_codes.table(),
    ),
)
def cli() -> None:
    """Create, list, watch, replace and delete processes."""


def spec_parameters(command: parameters.Command) -> parameters.Command:
    """Give a command the options that describe a process; it takes them as `spec`."""

    @parameters.program_parameters("process", complete_names, binary_required=True)
    @functools.wraps(command)
    def with_spec(
        *, name: str, binary: str, port_count: int, port_args: list[str], args: list[str], **others: Any
    ) -> None:
        from instance_manager.pb.imrpc import imrpc_pb2 as pb

        with parameters.sendable():
            spec = pb.ProcessSpec(
                name=name, binary=binary, port_count=port_count, port_args=port_args, args=args
            )
        command(spec=spec, **others)

    return with_spec


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "process create --name r1 --binary /bin/sleep -- 100",
        "process create --name r2 --binary /usr/bin/replica --port-count 2 "
        '--port-args "--listen,0.0.0.0:" -- /data',
    ),
)
@spec_parameters
@render.output_option
@connected
async def create(client: "Client", spec: "ProcessSpec", output: str | None) -> None:
    """Start a process.

    ARGS are the arguments of the program; put them after --. The command returns at once, in state
    `starting`, or `error` if the program cannot be executed; `process wait` waits until it is running.
    """
    render.show(await client.process_create(spec), output, PROCESSES)


@cli.command(
    epilog=examples(
        "process delete r1", "process delete --name r1 --uuid 0e2cbdd9-1c57-4b1f-a7a7-6a9e7d9e9a00"
    )
)
@NAME
@parameters.uuid_option
@render.output_option
@connected
async def delete(client: "Client", name: str, uuid: str, output: str | None) -> None:
    """Stop a process and take it off the list.

    The command returns at once; `process wait --for deleted` waits until the process is gone.
    """
    render.show(await client.process_delete(name, uuid), output, PROCESSES)


@cli.command(epilog=examples("process get r1", "process get --name r1 -o yaml"))
@NAME
@render.output_option
@connected
async def get(client: "Client", name: str, output: str | None) -> None:
    """Show one process."""
    found = await client.process_get(name)
    render.show(found, output, PROCESSES, await waits(client, found, output))


@cli.command("list", epilog=examples("process list", "process ls -o wide", "process list -o name"))
@render.output_option
@connected
async def list_(client: "Client", output: str | None) -> None:
    """Show every process, by name; `ls` for short."""
    found = await client.process_list()
    render.show(found, output, PROCESSES, await waits(client, found, output))


@cli.command(epilog=examples("process log r1", "process log r1 --tail 10 -f"))
@NAME
@parameters.follow_option
@parameters.tail_option
@connected
async def log(client: "Client", name: str, follow: bool, tail: int | None) -> None:
    """Show the output of a process, even after its end."""
    await render.copy_lines(client.process_log(name, follow=follow, tail=tail), flush=follow)


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples("process replace --name r1 --binary /usr/bin/replica-v2 -- /data"),
)
@spec_parameters
@parameters.terminate_signal_option
@render.output_option
@connected
async def replace(client: "Client", spec: "ProcessSpec", terminate_signal: str, output: str | None) -> None:
    """Replace a running process by one with another program.

    The command returns when the new process is running; until then the old one keeps the name. One that is
    not ready within the daemon's --replace-timeout (30 seconds, unless set otherwise) is ended.
    """
    render.show(await client.process_replace(spec, terminate_signal), output, PROCESSES)


@cli.command(
    epilog=examples("process wait r1 --for running", "process wait --name r1 --for deleted --timeout 120")
)
@NAME
@click.option(
    "--for",
    "goal",
    type=click.Choice(["running", "stopped", "deleted"]),
    required=True,
    help="State to wait for; a deleted process counts as stopped, too.",
)
@click.option(
    "--uuid",
    default="",
    metavar="UUID",
    help="UUID of the process.  [default: that of the process with this name]",
)
@click.option(
    "--timeout",
    type=Seconds(0, min_open=True),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@connected
async def wait(client: "Client", name: str, goal: str, uuid: str, timeout: float) -> None:  # noqa: ASYNC109
    """Wait until a process has reached a state.

    Fails at once, with exit code 8, if the state can no longer be reached: a process that has ended will not
    run, and one in state `error` will not be stopped. A lost connection is retried until the timeout.
    """
    from instance_manager.cli.wait import Goal, Waiter

    waiter = Waiter(name, Goal(goal), uuid)
    await waiter.wait(client, timeout)
    click.echo(f"{name} {waiter.seen}")


@cli.command(epilog=examples("process watch", "process watch -o json | jq .status.state"))
@parameters.lines_option
@parameters.local_option
@connected
async def watch(client: "Client", output: str | None, local: bool) -> None:
    """Show every change from now on, until Ctrl-C."""
    from instance_manager.cli.watch import follow_processes

    await follow_processes(client, as_text=render.as_text(output), local=local)
