"""Binary roots: only programs below these directories may be started."""

import os
from collections.abc import Sequence
from pathlib import Path

from instance_manager.core.errors import InvalidArgumentError, PermissionDeniedError


class BinaryAllowlist:
    """Resolves a program to a path, and refuses it if that is not below a root.

    Links and `..` are resolved, and the resolved path is executed, never the caller's. So nothing that can be
    changed outside the roots affects what is started: every directory on a resolved path is below a root or
    leads to it. Anyone who may write to those decides what may be started.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        """Allow programs below these directories, or all programs if there are none.

        Raises:
            InvalidArgumentError: if one of them is not a directory.
        """
        for root in roots:
            if not root.is_dir():
                raise InvalidArgumentError(
                    f"cannot use the binary root {root}: it is not a directory; create it or name another"
                )
        self._roots = tuple(roots)

    def resolve(self, program: str, search_path: Sequence[str]) -> str:
        """Return the path to execute for a program; the program as given if all are allowed.

        Args:
            program: the program as given by the caller.
            search_path: directories in which a name without a slash is searched.

        Raises:
            PermissionDeniedError: if it is not below a root, whether it exists or not.
        """
        if not self._roots:
            return program
        path = _resolve(program if "/" in program else _search(program, search_path))
        # A root may be a link that is changed to another version, so it is resolved each time.
        if not any(_is_below(path, _resolve(root)) for root in self._roots):
            raise PermissionDeniedError(
                f"cannot start {program}: it does not lie below a directory that --binary-root allows "
                f"({', '.join(map(str, self._roots))}), links resolved"
            )
        return path


def _resolve(path: str | Path) -> str:
    resolved = os.path.realpath(path)
    # A path that is too long for the kernel is resolved only in part, and then changes when resolved again.
    if os.path.realpath(resolved) != resolved:
        raise PermissionDeniedError(f"cannot start {path}: its links cannot be resolved")
    return resolved


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _search(program: str, search_path: Sequence[str]) -> str:
    """Return the first executable file of this name, as execvp(3) would."""
    paths = (os.path.join(folder, program) for folder in search_path)  # noqa: PTH118 - an empty one is the cwd
    return next((path for path in paths if os.access(path, os.X_OK)), program)
