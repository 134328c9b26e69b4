"""What the commands of several groups take, and how their help ends."""

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
    """A group whose commands have other names too, which its help does not repeat."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by any of its names."""
        return super().resolve_command(ctx, [ALIASES.get(args[0], args[0]), *args[1:]])


def examples(*lines: str, before: str = "") -> str:
    """Return the end of a command's help; each line is what follows the name of the program."""
    shown = "\n".join(f"  instance-manager {line}" for line in lines)
    return f"{before}\n\n\b\nExamples:\n{shown}"


def name_parameters(what: str, complete: Complete) -> Decorator:
    """Give a command the name of a process or an instance, as an argument or as --name."""

    def decorate(command: Command) -> Command:
        @click.argument("argument", metavar="[NAME]", required=False, shell_complete=complete)
        @click.option("--name", metavar="NAME", shell_complete=complete, help=f"Name of the {what}.")
        @functools.wraps(command)
        def with_name(*, argument: str | None, name: str | None, **others: Any) -> None:
            given = {each for each in (argument, name) if each is not None}
            if len(given) != 1:
                raise click.UsageError(f"cannot tell which {what} is meant: give one NAME, or --name NAME")
            command(name=given.pop(), **others)

        return with_name

    return decorate


def program_parameters(what: str, complete: Complete, *, binary_required: bool) -> Decorator:
    """Give a command a name and what tells which program to run: --binary, ports and ARGS."""
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
            help="How many ports in a row it needs.",
        ),
        click.option(
            "--port-args",
            multiple=True,
            metavar="ARG",
            help="ARG with a port appended, then split at each comma, goes to the end of the arguments; the "
            "n-th --port-args gets the n-th port.  [default: none]",
        ),
        click.argument("args", nargs=-1, type=click.UNPROCESSED),
    )
    return lambda command: functools.reduce(lambda so_far, option: option(so_far), reversed(options), command)


@contextmanager
def sendable() -> Iterator[None]:
    """Refuse what a message cannot hold while a message is made."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(f"cannot send an argument that is not UTF-8: {error}") from error


uuid_option = click.option(
    "--uuid", default="", metavar="UUID", help="Delete it only if it has this UUID.  [default: any]"
)
follow_option = click.option("-f", "--follow", is_flag=True, help="Go on until it is deleted.")
tail_option = click.option(
    "--tail", type=click.IntRange(0), metavar="LINES", help="Begin with the last LINES lines.  [default: all]"
)
terminate_signal_option = click.option(
    "--terminate-signal",
    default="SIGHUP",
    show_default=True,
    metavar="SIGNAL",
    help="What ends the old one; the daemon accepts no other.",
)
lines_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    help="A line of text or of JSON per change.  [default: text on a terminal, otherwise json]",
)


def data_engine_option(default: "DataEngine" = "v1") -> Decorator:
    """Give a command the data engine that is meant."""
    return click.option(
        "--data-engine",
        type=click.Choice(["v1", "v2"]),
        default=default,
        show_default=True,
        help="Where it is.",
    )


def type_option(*, required: bool) -> Decorator:
    """Give a command the type of an instance; it takes it as `kind`."""
    return click.option(
        "--type",
        "kind",
        type=click.Choice([kind.value for kind in InstanceType]),
        required=required,
        callback=lambda _, __, given: given or "",
        help="What it is." if required else "What it is.  [default: none; v2 needs it]",
    )
