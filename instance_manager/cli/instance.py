"""`instance-manager instance`: the instances of both data engines."""

from typing import TYPE_CHECKING

import click

from instance_manager.cli import exit_codes, parameters, render
from instance_manager.cli.connection import complete_instances, connected
from instance_manager.cli.instance_spec import spec_parameters
from instance_manager.cli.parameters import examples
from instance_manager.cli.views import INSTANCES
from instance_manager.cli.waiting import waits

if TYPE_CHECKING:
    from instance_manager.client import Client, DataEngine
    from instance_manager.pb.imrpc.instance_pb2 import InstanceSpec

NAME = parameters.name_parameters("instance", complete_instances)


def which(command: parameters.Command) -> parameters.Command:
    """Give a command the parameters that choose an instance of either data engine."""
    return NAME(parameters.type_option(required=False)(parameters.data_engine_option()(command)))


def which_v2(command: parameters.Command) -> parameters.Command:
    """Give a command the parameters that choose an instance, by default of v2."""
    return NAME(parameters.type_option(required=True)(parameters.data_engine_option("v2")(command)))


@click.group(
    cls=parameters.AliasGroup,
    epilog=examples(
        "instance list",
        "instance create --name r1 --type replica --binary /bin/sleep -- 100",
        "instance delete r1",
        before=exit_codes.table(),
    ),
)
def cli() -> None:
    """Create, list, watch, replace and delete instances of both data engines."""


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "instance create --name r1 --type replica --binary /bin/sleep -- 100",
        "instance create --name r2 --type replica --data-engine v2 --size 10Gi --disk-name d1 --port-count 5",
        "instance create --name e1 --type engine --data-engine v2 --volume-name v1 --size 10Gi "
        "--replica-address r2=10.0.0.1:20001",
        "instance create --name f1 --type engine-frontend --data-engine v2 --volume-name v1 --engine-name e1 "
        "--target-address 10.0.0.1:20001 --frontend spdk-tcp-blockdev",
        "instance create --name v1-0 --type shard --data-engine v2 --volume-name v1 --size 5Gi --lvs-name d1",
        "instance create --name g1 --type shardgroup --data-engine v2 --volume-name v1 --size 10Gi "
        "--data-chunks 2 --parity-chunks 1 --strip-size-kb 64 --shard v1-0=10.0.0.1:20001,0 "
        "--shard v1-1=10.0.0.2:20001,1 --shard v1-2=10.0.0.3:20001,2",
    ),
)
@spec_parameters
@click.option("--sharded", is_flag=True, help="The data of its volume is spread over shards (v2).")
@render.output_option
@connected
async def create(client: "Client", spec: "InstanceSpec", sharded: bool, output: str | None) -> None:
    """Start an instance.

    v1: ARGS are the arguments of the program; put them after --. The command returns at once, in state
    `starting`, or `error` if the program cannot be executed.

    v2: the SPDK service names a shard itself, by its volume and slot.
    """
    render.show(await client.instance_create(spec, sharded=sharded), output, INSTANCES)


@cli.command(
    epilog=examples(
        "instance delete r1",
        "instance delete r1 --uuid 0e2cbdd9-1c57-4b1f-a7a7-6a9e7d9e9a00",
        "instance delete r2 --type replica --data-engine v2 --cleanup",
    )
)
@which
@parameters.uuid_option
@click.option(
    "--disk-uuid",
    default="",
    metavar="UUID",
    help="UUID of its disk (v2); it is passed on, not compared.  [default: none]",
)
@click.option(
    "--cleanup", "--cleanup-required", "cleanup", is_flag=True, help="Remove its data as well (v2)."
)
@render.output_option
@connected
async def delete(
    client: "Client",
    name: str,
    kind: str,
    data_engine: "DataEngine",
    uuid: str,
    disk_uuid: str,
    cleanup: bool,
    output: str | None,
) -> None:
    """Stop an instance and take it off the list."""
    deleted = await client.instance_delete(
        name, uuid, kind=kind, data_engine=data_engine, disk_uuid=disk_uuid, cleanup=cleanup
    )
    render.show(deleted, output, INSTANCES)


@cli.command(epilog=examples("instance get r1", "instance get e1 --type engine --data-engine v2 -o yaml"))
@which
@render.output_option
@connected
async def get(client: "Client", name: str, kind: str, data_engine: "DataEngine", output: str | None) -> None:
    """Show one instance."""
    found = await client.instance_get(name, kind=kind, data_engine=data_engine)
    render.show(found, output, INSTANCES, await waits(client, found, output))


@cli.command("list", epilog=examples("instance list", "instance ls -o wide", "instance list -o name"))
@render.output_option
@connected
async def list_(client: "Client", output: str | None) -> None:
    """Show every instance of both data engines, by name; `ls` for short."""
    found = await client.instance_list()
    render.show(found, output, INSTANCES, await waits(client, found, output))


@cli.command(epilog=examples("instance log r1", "instance log r1 --tail 10 -f"))
@which
@parameters.follow_option
@parameters.tail_option
@connected
async def log(
    client: "Client", name: str, kind: str, data_engine: "DataEngine", follow: bool, tail: int | None
) -> None:
    """Show the output of an instance, even after its end (v1)."""
    lines = client.instance_log(name, kind=kind, data_engine=data_engine, follow=follow, tail=tail)
    await render.copy_lines(lines, flush=follow)


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples("instance replace --name r1 --type replica --binary /usr/bin/replica-v2 -- /data"),
)
@spec_parameters
@parameters.terminate_signal_option
@render.output_option
@connected
async def replace(client: "Client", spec: "InstanceSpec", terminate_signal: str, output: str | None) -> None:
    """Replace a running instance by one with another program (v1).

    The command returns when the new instance is running; until then the old one keeps the name. One that is
    not ready within the daemon's --replace-timeout (30 seconds, unless set otherwise) is ended.
    """
    render.show(await client.instance_replace(spec, terminate_signal), output, INSTANCES)


@cli.command(epilog=examples("instance watch", "instance watch -o json | jq .status.state"))
@parameters.lines_option
@parameters.local_option
@connected
async def watch(client: "Client", output: str | None, local: bool) -> None:
    """Show changes from now on, until Ctrl-C.

    The daemon only says that something has changed, so the list is read again and compared each time: of
    several changes in quick succession only the last is shown. `instance-manager events -w` shows them all.
    """
    from instance_manager.cli.watch import follow_instances

    await follow_instances(client, as_text=render.as_text(output), local=local)


@cli.command(epilog=examples("instance suspend e1 --type engine-frontend"))
@which_v2
@connected
async def suspend(client: "Client", name: str, kind: str, data_engine: "DataEngine") -> None:
    """Suspend the I/O of an instance (v2)."""
    await client.instance_suspend(name, kind=kind, data_engine=data_engine)


@cli.command(epilog=examples("instance resume e1 --type engine-frontend"))
@which_v2
@connected
async def resume(client: "Client", name: str, kind: str, data_engine: "DataEngine") -> None:
    """Resume the I/O of a suspended instance (v2)."""
    await client.instance_resume(name, kind=kind, data_engine=data_engine)


@cli.command(
    "switch-over",
    epilog=examples("instance switch-over f1 --type engine-frontend --target-address 10.0.0.2:20001"),
)
@which_v2
@click.option("--target-address", required=True, metavar="ADDRESS", help="New target, HOST:PORT.")
@click.option("--engine-name", default="", metavar="NAME", help="Engine behind that target.  [default: none]")
@click.option("--phase", default="", metavar="PHASE", help="Run only this phase.  [default: all of them]")
@connected
async def switch_over(
    client: "Client",
    name: str,
    kind: str,
    data_engine: "DataEngine",
    target_address: str,
    engine_name: str,
    phase: str,
) -> None:
    """Switch an engine frontend over to another target (v2)."""
    await client.instance_switch_over(
        name, target_address, kind=kind, engine_name=engine_name, phase=phase, data_engine=data_engine
    )


@cli.command("delete-target", epilog=examples("instance delete-target e1 --type engine"))
@which_v2
@connected
async def delete_target(client: "Client", name: str, kind: str, data_engine: "DataEngine") -> None:
    """Remove the target of an engine and keep the engine (v2)."""
    await client.instance_delete_target(name, kind=kind, data_engine=data_engine)
