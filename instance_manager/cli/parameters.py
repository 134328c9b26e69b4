"""Parameters shared by the commands of several groups, and the examples at the end of their help."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from instance_manager.cli.connection import Complete
from instance_manager.core.instance import InstanceType

if TYPE_CHECKING:
    from instance_manager.client import DataEngine

ALIASES = {"ls": "list"}

Command = Callable[..., None]
Decorator = Callable[[Command], Command]


class AliasGroup(click.Group):
    """A group whose commands also have aliases, which its help does not list."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by any of its names."""
        return super().resolve_command(ctx, [ALIASES.get(args[0], args[0]), *args[1:]])


def examples(*lines: str, before: str = "") -> str:
    """Return the epilog of a command's help; each line is an example without the name of the program."""
    shown = "\n".join(f"  instance-manager {line}" for line in lines)
    return f"{before}\n\n\b\nExamples:\n{shown}"


def local_option(command: Command) -> Command:
    """Give a command that prints times --local."""
    return click.option("--local", is_flag=True, help="Show times as local time.  [default: UTC]")(command)


def name_parameters(what: str, complete: Complete) -> Decorator:
    """Give a command the name of a process or an instance, as an argument or as --name."""

    def decorate(command: Command) -> Command:
        @click.argument("argument", metavar="[NAME]", required=False, shell_complete=complete)
        @click.option("--name", metavar="NAME", shell_complete=complete, help=f"Name of the {what}.")
        @functools.wraps(command)
        def with_name(*, argument: str | None, name: str | None, **others: Any) -> None:
            given = {each for each in (argument, name) if each is not None}
            if len(given) != 1:
                found = "more than one" if given else "no"
                raise click.UsageError(f"{found} {what} name given: give one NAME, or --name NAME")
            command(name=given.pop(), **others)

        return with_name

    return decorate


def program_parameters(what: str, complete: Complete, *, binary_required: bool) -> Decorator:
    """Give a command a name and the program to run: --binary, ports and ARGS."""
    options = (
        click.option(
            "--name", required=True, metavar="NAME", shell_complete=complete, help=f"Name of the {what}."
        ),
        click.option(
            "--binary",
            required=binary_required,
            type=click.Path(),
            help="Path of the program, on the daemon's machine."
            + ("" if binary_required else "  [default: none; v1 needs one]"),
        ),
        click.option(
            "--port-count",
            type=click.IntRange(0, 65535),
            default=0,
            show_default=True,
            metavar="COUNT",
            help="How many consecutive ports it needs.",
        ),
        click.option(
            "--port-args",
            multiple=True,
            metavar="ARG",
            help="Add ARG with a port appended, split at each comma, to the end of the arguments; the n-th "
            "--port-args gets the n-th port.  [default: none]",
        ),
        click.argument("args", nargs=-1, type=click.UNPROCESSED),
    )
    return lambda command: functools.reduce(lambda so_far, option: option(so_far), reversed(options), command)


@contextmanager
def sendable() -> Iterator[None]:
    """Turn a protobuf error about text that is not UTF-8 into a usage error."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(f"cannot send an argument that is not UTF-8: {error}") from error


uuid_option = click.option(
    "--uuid", default="", metavar="UUID", help="Delete it only if it has this UUID.  [default: any]"
)
follow_option = click.option("-f", "--follow", is_flag=True, help="Continue until it is deleted.")
tail_option = click.option(
    "--tail", type=click.IntRange(0), metavar="LINES", help="Show only the last LINES lines.  [default: all]"
)
terminate_signal_option = click.option(
    "--terminate-signal",
    default="SIGHUP",
    show_default=True,
    metavar="SIGNAL",
    help="Signal that stops the old one; the daemon accepts no other.",
)
lines_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    help="How to show each change, on a line.  [default: text on a terminal, otherwise json]",
)


def data_engine_option(default: "DataEngine" = "v1") -> Decorator:
    """Give a command the option for the data engine."""
    return click.option(
        "--data-engine",
        type=click.Choice(["v1", "v2"]),
        default=default,
        show_default=True,
        help="Data engine: v1 is a process, v2 an instance in the SPDK service.",
    )


def type_option(*, required: bool) -> Decorator:
    """Give a command the type of an instance; it takes it as `kind`."""
    return click.option(
        "--type",
        "kind",
        type=click.Choice([kind.value for kind in InstanceType]),
        required=required,
        callback=lambda _, __, given: given or "",
        help="Type of the instance." if required else "Type of the instance.  [default: none; v2 needs it]",
    )
