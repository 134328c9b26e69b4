"""The options that say how to tell what belongs to an instance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def containment_options(command: Command) -> Command:
    """Give a command these options."""
    for option in (
        click.option(
            "--cgroup-root",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            show_default="the daemon's own cgroup",
            help="Cgroup (version 2) in which those of the instances are made.",
        ),
        click.option(
            "--containment",
            type=click.Choice(["auto", "cgroup", "session"]),
            default="session",
            show_default=True,
            help="How to tell what belongs to an instance: by a cgroup (version 2) each, or by session and "
            "environment; auto takes cgroups where they can be made.",
        ),
    ):
        command = option(command)
    return command
