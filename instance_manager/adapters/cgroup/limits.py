"""Limits of an instance, and the controllers of the kernel that keep them."""

from collections.abc import Iterator

from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.core.limits import InstanceLimits


def settings_of(limits: InstanceLimits) -> Iterator[tuple[str, str, bool]]:
    """Yield the files of a cgroup to write, what to write, and whether somebody asked for it."""
    # One without some of its processes is neither running nor ended: all of it goes, and is seen to go.
    yield "memory.oom.group", "1", False
    for file, text in limits.files().items():
        yield file, text, True


def limit(folder: Folder, limits: InstanceLimits) -> dict[str, str]:
    """Set the limits of a cgroup; return why some could not be set, by file."""
    refused = {}
    for file, text, wanted in settings_of(limits):
        try:
            folder.write(file, text)
        except FileNotFoundError:
            if wanted:
                refused[file] = f"the controller {file.partition('.')[0]} is not enabled"
        except OSError as error:
            if wanted:
                refused[file] = error.strerror or str(error)
    return refused
