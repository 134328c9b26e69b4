"""The lines of a mountinfo, proc_pid_mountinfo(5)."""

import re
from collections.abc import Iterable

_MOUNT_POINT = 4  # field
_ESCAPED = re.compile(r"\\([0-7]{3})")


def unescaped(field: str) -> str:
    r"""Return a path as it is: blanks and backslashes are written as octal numbers, like \040."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)


def mount_points(lines: Iterable[str]) -> list[str]:
    """Return all mount points, the first one first, each as often as something is mounted there."""
    split = (line.partition(" - ")[0].split(" ") for line in lines)
    return [unescaped(fields[_MOUNT_POINT]) for fields in split if len(fields) > _MOUNT_POINT]
