"""`instance-manager stub` as a click command, used only when global options come before it.

Otherwise `main` of the command line runs the stub without click. Either way the stub parses its arguments
itself.
"""

import click

from instance_manager.stub.__main__ import main


@click.command(
    "stub",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def cli(arguments: tuple[str, ...]) -> None:
    """Run a stand-in for an engine or a replica (for tests)."""
    main(arguments)
