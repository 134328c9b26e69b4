"""Defaults of options from a YAML file (`--config`), in the form of click's default map.

    url: tcp://localhost:9500
    process:
      list:
        output: wide

A key is a command or the name of an option without its dashes. Every key is checked, so that a misspelt one
does not go unnoticed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.platform.files import open_regular

_LONGEST_SHOWN = 100
"""Characters of a wrong value that are shown."""
_LARGEST = 1 << 20
"""Largest size of the file in bytes."""


def read_defaults(file: str, ctx: click.Context) -> dict[str, Any]:
    """Return the defaults in a file for the command of a context and its subcommands.

    Raises:
        Failure: if the file cannot be read, or contains an unknown key.
    """
    import yaml

    try:
        with open_regular(Path(file)) as opened:
            text = opened.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise _refused(file, f"it has more than {_LARGEST >> 10} KiB")
        content = yaml.safe_load(text)
    except OSError as error:
        raise _refused(file, error.strerror or str(error)) from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _refused(file, f"{error.problem}{line}") from error
    except RecursionError as error:
        raise _refused(file, "it is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(file, " ".join(str(error).split())) from error
    try:
        return _defaults({} if content is None else content, ctx.command, ctx, ())
    except ValueError as error:
        raise _refused(file, str(error)) from error


def _refused(file: str, why: str) -> Failure:
    return Failure(f"cannot use the configuration file {file}: {why}", ExitCode.USAGE)


def _defaults(
    content: object, command: click.Command, ctx: click.Context, path: tuple[str, ...]
) -> dict[str, Any]:
    """Return a part of the file as click's default map.

    Raises:
        ValueError: if the part does not match the command.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{'.'.join(path) or 'the file'} has to be a mapping, not {_short(content)}")  # noqa: TRY004
    options = _options(command)
    found: dict[str, Any] = {}
    for key, value in content.items():
        here = (*path, str(key))
        if key in options:
            if value is not None:  # without a value, it is as if the key were not there
                found[str(options[key].name)] = _value(options[key], value, ".".join(here))
        elif isinstance(command, click.Group) and (below := command.get_command(ctx, str(key))) is not None:
            found[key] = _defaults(value, below, ctx, here)
        else:
            raise ValueError(f"{'.'.join(here)} is neither an option nor a command")
    return found


def _value(option: click.Option, value: object, where: str) -> object:
    """Return a value as the command line would give it: as text, except for flags and lists.

    Raises:
        ValueError: if the option cannot have such a value.
    """
    values = value if option.multiple and isinstance(value, list) else [value]
    for each in values:
        if isinstance(each, Mapping | list | None) or isinstance(each, bool) != option.is_flag:
            wanted = "true or false" if option.is_flag else "text or a number"
            raise ValueError(f"{where} has to be {wanted}, not {_short(each)}")
    if option.is_flag:
        return value
    return [str(each) for each in values] if option.multiple else str(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _options(command: click.Command) -> dict[str, click.Option]:
    """Return the options by their names, without dashes."""
    return {
        flag.removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option) and param.name != "config"
        for flag in param.opts
        if flag.startswith("--") and not param.is_eager
    }
