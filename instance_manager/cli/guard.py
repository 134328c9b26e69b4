"""`instance-manager guard` as a click command, used only when global options come before it.

Otherwise `main` of the command line runs the guard without click, which halves its memory. Either way the
guard parses its arguments itself, `--` included.
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
    """Run the daemon, and restart it when it dies."""
    main(ctx.args)
