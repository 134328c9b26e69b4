"""Finding the log that a running process writes: it may have been rotated or removed since."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from instance_manager.adapters.logs.opening import open_for_reader

_STDOUT, _STDERR = 1, 2
_DELETED = " (deleted)"
"""What the kernel appends to the path of a removed file."""


def open_output(pid: int | None, path: Path) -> int | None:
    """Open the log of a process for reading; None if it was given none.

    Args:
        pid: the process; None if only descendants of it are left.
        path: where its log was made. Only a file that is there, or was, is taken for its log: the process may
            have opened something else since, which is nobody's to cut.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be opened.
    """
    if pid is not None:
        outputs = [Path(f"/proc/{pid}/fd/{number}") for number in (_STDOUT, _STDERR)]
        for output in outputs:
            with suppress(OSError):
                if _is_log(output, path):
                    return os.open(output, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with suppress(OSError):
            if all(output.samefile(os.devnull) for output in outputs):
                return None
    return open_for_reader(path)


def _is_log(output: Path, path: Path) -> bool:
    status = output.stat()
    if not stat.S_ISREG(status.st_mode):
        return False
    with suppress(OSError):
        if os.path.samestat(status, path.stat()):
            return True
    target = Path(str(output.readlink()).removesuffix(_DELETED))
    return target.parent == path.parent.resolve() and path.stem in target.name
