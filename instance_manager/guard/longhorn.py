"""What a pod of a Longhorn manager needs before its daemon starts: the node's devices, and tgtd."""

import os
from collections.abc import Mapping, Sequence

from instance_manager.guard.log import Log
from instance_manager.platform.linux import bind_recursively, file_identity

NAME = "longhorn"
"""What the option --prepare calls this."""
FOLDERS = (("/host/dev", "/dev"), ("/host/sys", "/sys"), ("/host/lib/modules", "/lib/modules"))
"""The node's folders, and where engines and tgtd look for them."""
TARGET_DAEMON = "tgtd"


def prepare(environment: Mapping[str, str], log: Log) -> list[str]:
    """Bind the node's folders, and return the helpers to start; does neither for the v2 data engine."""
    if environment.get("DATA_ENGINE") == "v2":
        return []
    bind(FOLDERS, log)
    path = environment.get("PATH", os.defpath).split(":")
    if any(os.access(f"{folder}/{TARGET_DAEMON}", os.X_OK) for folder in path if folder):
        return [f"{TARGET_DAEMON}={TARGET_DAEMON} -f"]  # in the foreground
    log.info("no tgtd is started: it is not in this image; volumes with an iSCSI frontend need it")
    return []


def bind(folders: Sequence[tuple[str, str]], log: Log) -> None:
    """Bind each first folder that exists over the second one, if that is not so already."""
    bound, refused = [], {}
    for source, target in folders:
        if not os.path.isdir(source) or file_identity(source) == file_identity(target):  # noqa: PTH112
            continue
        try:
            os.makedirs(target, exist_ok=True)  # noqa: PTH103 - pathlib costs a MiB
            bind_recursively(source, target)
        except OSError as error:
            refused[target] = error.strerror or str(error)
        else:
            bound.append(target)
    if bound:
        log.info("the node's folders are bound", folders=", ".join(bound))
    if refused:
        log.warning(
            "the node's folders cannot be bound; engines may not find their devices",
            folders=", ".join(refused),
            error="; ".join(sorted(set(refused.values()))),
        )
