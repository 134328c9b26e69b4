"""Sizes and durations as people write them."""

import math
import re
from datetime import UTC, datetime
from typing import Any

import click

_SIZE = re.compile(r"(\d+)(?:([KMGT])i)?")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_TOO_MUCH = 1 << 63
_LONGEST = 20 * 366 * 86_400
"""Longest duration in seconds."""
_SECONDS = (86_400, 3_600, 60, 1)
_UNITS = "dhms"
_WHOLE_ALONE = 10
"""From this count of a unit on, the next smaller unit is not shown."""


class Seconds(click.FloatRange):
    """A number of seconds; unlike its base it takes neither nan nor inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"cannot use {value!r}: write a number of seconds", param, ctx)
        return seconds


def parse_size(given: str | int) -> int:
    """Return a size in bytes, from text such as 1073741824 or 1Gi.

    Raises:
        click.BadParameter: if the text is malformed, or the size too large.
    """
    text = str(given)
    found = _SIZE.fullmatch(text)
    size = int(found[1]) << (10 * " KMGT".index(found[2] or " ")) if found else _TOO_MUCH
    if size >= _TOO_MUCH:
        raise click.BadParameter(f"cannot use the size {text!r}: write bytes, or 100Mi, 20Gi, 1Ti")
    return size


def parse_duration(given: str | int) -> int:
    """Return a duration in seconds, from text such as 90, 1m30s, 10m, 1h30m or 2d.

    Raises:
        click.BadParameter: if the text is malformed, or the duration too long.
    """
    text = str(given)
    found = _DURATION.fullmatch(text)
    parts = found.groups() if found and text else ()
    seconds = sum(int(part) * unit for part, unit in zip(parts, _SECONDS, strict=False) if part)
    if not parts or seconds > _LONGEST:
        raise click.BadParameter(f"cannot use the duration {text!r}: write seconds, or 10m, 1h30m, 2d")
    return seconds


def moment(seconds: float, *, local: bool = False) -> str:
    """Return a time, in seconds since the epoch: in UTC with a Z, or as local time with its offset."""
    time = datetime.fromtimestamp(seconds, UTC)
    if local:
        return time.astimezone().isoformat(timespec="milliseconds")
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(seconds: float) -> str:
    """Return how long ago something was, in two units at most: 5s, 3m20s, 12m, 4h, 2d3h."""
    left = max(int(seconds), 0)
    for at, unit in enumerate(_SECONDS):
        count, rest = divmod(left, unit)
        if count:
            next_count = rest // _SECONDS[at + 1] if unit > 1 and count < _WHOLE_ALONE else 0
            return f"{count}{_UNITS[at]}" + (f"{next_count}{_UNITS[at + 1]}" if next_count else "")
    return "0s"
