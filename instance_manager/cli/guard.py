"""`instance-manager guard` as a click command, for when options of the root precede it.

`main` of the command line runs the guard without click otherwise, which saves it half of its memory. There is
one parser: the guard's own, to which every argument goes as it is, `--` included.
"""

import click

from instance_manager.guard.__main__ import main


class _Verbatim(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = args
        return args


@click.command("guard", cls=_Verbatim)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run the daemon, and start it again when it dies."""
    main(ctx.args)
