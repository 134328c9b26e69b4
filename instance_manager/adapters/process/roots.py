"""Binary roots: the directories below which everything lies that may be started."""

import os
from collections.abc import Sequence
from pathlib import Path

from instance_manager.core.errors import InvalidArgumentError, PermissionDeniedError


class BinaryRoots:
    """Finds the file that a program stands for, and refuses it if it lies elsewhere.

    A path is resolved to one without links and `..`, and it is this one that is executed, never the caller's
    again. So nothing that can be changed outside the roots has a say in what is started: every folder on a
    resolved path is either below a root or leads to it. Who may write to those decides what may be started.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        """Allow what is below these directories; everything if there are none.

        Raises:
            InvalidArgumentError: if one of them is not a directory.
        """
        for root in roots:
            if not root.is_dir():
                raise InvalidArgumentError(
                    f"cannot use the binary root {root}: it is not a directory; create it or name another"
                )
        self._roots = tuple(roots)

    def find(self, program: str, search_path: Sequence[str]) -> str:
        """Return what to execute for a program; the program itself where everything is allowed.

        Args:
            program: as the caller gave it.
            search_path: folders in which a program without a slash is looked for.

        Raises:
            PermissionDeniedError: if it lies below no root, whether it exists or not.
        """
        if not self._roots:
            return program
        path = _resolve(program if "/" in program else _look_for(program, search_path))
        # A root may be a link that is changed to lead to another version, so it is resolved each time.
        if not any(_is_below(path, _resolve(root)) for root in self._roots):
            raise PermissionDeniedError(
                f"cannot start {program}: it does not lie below a directory that --binary-root allows "
                f"({', '.join(map(str, self._roots))}), links resolved"
            )
        return path


def _resolve(path: str | Path) -> str:
    resolved = os.path.realpath(path)
    # A path too long for the kernel is resolved in part only; what changes again was not the whole way.
    if os.path.realpath(resolved) != resolved:
        raise PermissionDeniedError(f"cannot start {path}: its links cannot be resolved")
    return resolved


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _look_for(program: str, search_path: Sequence[str]) -> str:
    """Return the first file of this name that can be executed, as execvp(3) finds it."""
    paths = (os.path.join(folder, program) for folder in search_path)  # noqa: PTH118 - an empty one is the cwd
    return next((path for path in paths if os.access(path, os.X_OK)), program)
