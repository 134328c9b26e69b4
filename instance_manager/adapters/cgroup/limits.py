"""Limits of an instance, and the controllers of the kernel that keep them."""

from collections.abc import Iterator

import structlog

from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.core.limits import FILES, InstanceLimits

log = structlog.get_logger(__name__)

_ATTRIBUTE = "limits"
"""What of the cgroup says which settings were wanted, with a file and its text in each line."""
_OOM_GROUP = "memory.oom.group"
_FILES = {_OOM_GROUP, *FILES.values()}
"""All files of settings: no other is ever written."""


def settings_of(limits: InstanceLimits) -> Iterator[tuple[str, str, bool]]:
    """Yield the files of a cgroup to write, what to write, and whether somebody asked for it."""
    # One without some of its processes is neither running nor ended: all of it goes, and is seen to go.
    yield _OOM_GROUP, "1", False
    for file, text in limits.files().items():
        yield file, text, True


def limit(folder: Folder, limits: InstanceLimits) -> dict[str, str]:
    """Set the limits of a cgroup, and write them on it; return why some could not be set, by file.

    Raises:
        OSError: if nothing can be written on it.
    """
    refused = {}
    for file, text, wanted in settings_of(limits):
        if (reason := _set(folder, file, text)) and wanted:
            refused[file] = reason
    folder.set_attribute(
        _ATTRIBUTE, "".join(f"{file} {text}\n" for file, text, _ in settings_of(limits)).encode()
    )
    return refused


def limit_again(folder: Folder) -> None:
    """Set the limits that are written on a cgroup: they are gone if its controllers were disabled meanwhile.

    systemd before version 254 can start a unit again only without controllers in what lives on below it.
    """
    for line in (folder.attribute(_ATTRIBUTE) or b"").decode("ascii", "replace").splitlines():
        file, _, text = line.partition(" ")
        if file in _FILES and (reason := _set(folder, file, text)):
            log.debug("limit not set", cgroup=folder.name, file=file, reason=reason)


def _set(folder: Folder, file: str, text: str) -> str:
    """Write to a file of a controller; return why that is refused."""
    try:
        folder.write(file, text)
    except FileNotFoundError:
        return f"the controller {file.partition('.')[0]} is not enabled"
    except OSError as error:
        return error.strerror or str(error)
    return ""
