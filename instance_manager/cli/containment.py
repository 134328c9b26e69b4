"""The options that say how to tell what belongs to an instance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from instance_manager.cli.units import parse_size

Command = TypeVar("Command", bound=Callable[..., Any])


_LEAST_MEMORY = 1 << 20
"""Bytes. With less the kernel ends every program as it starts."""


def parse_memory_limit(given: str | int) -> int:
    """Return a limit of memory in bytes, from text such as 2Gi.

    Raises:
        click.BadParameter: if it is no size, or no program could run with it.
    """
    size = parse_size(given)
    if size < _LEAST_MEMORY:
        raise click.BadParameter(
            f"no instance could run with {given}: give at least 1Mi, or leave the option out for no limit"
        )
    return size


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
            default="auto",
            show_default=True,
            help="How to tell what belongs to an instance: by a cgroup (version 2) each, or by session and "
            "environment; auto takes cgroups where they can be made.",
        ),
        click.option(
            "--instance-cpu-weight",
            type=click.IntRange(1, 10_000),
            metavar="WEIGHT",
            show_default="100",
            help="Share of the CPU of each instance when it is scarce; needs cgroups.",
        ),
        click.option(
            "--instance-pids-max",
            type=click.IntRange(1),
            metavar="COUNT",
            show_default="no limit",
            help="Largest number of processes and threads of each instance; needs cgroups.",
        ),
        click.option(
            "--instance-memory-max",
            type=parse_memory_limit,
            metavar="SIZE",
            show_default="no limit",
            help="Memory of each instance, such as 2Gi; at the limit, the kernel ends it; needs cgroups.",
        ),
    ):
        command = option(command)
    return command
