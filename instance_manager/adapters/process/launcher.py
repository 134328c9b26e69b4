"""The launcher: what a process executes before its program to enter its cell, if it could not start there.

A process that is moved by others may have started some by then, which stay behind. So it is a shell that
enters and then becomes the program: nothing is executed outside, and one that cannot enter executes nothing.
What the shell would do otherwise than execve(2) is looked at before it starts, or undone:

- it runs a file of an unknown format as a script: refused here.
- it takes on variables whose names it does not know as such: `env` hands those over.
- it sets PWD: taken away again, unless it was there.
"""

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress

from instance_manager.platform.commands import ENTER_CGROUP, INHERITED, SHELL

_ENTRANCE, _REPORT = INHERITED, 4
"""Descriptors in the launcher: the directory of the cell, and a pipe that says how it went."""
_HIGH = 10
"""Descriptors of ours are at least this, so that none is overwritten by another one's copy."""
_JOIN, _EXEC = "join", "exec"
_SCRIPT = (
    f"{ENTER_CGROUP} || {{ echo {_JOIN} >&{_REPORT}; exit 126; }}; "
    # A shell that cannot execute the program tells so: by a trap, or as bash, by going on.
    f"trap 'echo {_EXEC} >&{_REPORT}' EXIT; "
    'if [ -n "${BASH_VERSION-}" ]; then shopt -s execfail; fi; '
    "%s"
    # Its copy of the pipe is closed by execve(2) itself, and comes back if that fails.
    f'{{ exec "$@"; }} {_ENTRANCE}>&- {_REPORT}>&-; exit 126'
)
_FORMATS = (b"\x7fELF", b"#!")
_SHELL_ONLY = ("PWD", "OLDPWD", "SHLVL", "_")


class Launch:
    """One launch: how a process came to execute its program, or why it did not."""

    def __init__(self, program: str) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._writing = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._program = program
        self._reading: int | None = reading
        self._told = b""
        self._over = asyncio.Event()

    def copies(self, entrance: int) -> list[tuple[int, int]]:
        """Return the descriptors that the launcher needs, and as which; `entrance` is that of the cell."""
        return [(entrance, _ENTRANCE), (self._writing, _REPORT)]

    def started(self) -> None:
        """Wait from now on for what the launcher tells."""
        os.close(self._writing)
        self._writing = -1
        if self._reading is not None:
            asyncio.get_running_loop().add_reader(self._reading, self._read)

    def close(self) -> None:
        """Wait no more."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
        if self._reading is not None:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self._reading = None
        self._over.set()

    async def over(self) -> None:
        """Wait until the program is executed, or never will be."""
        await self._over.wait()

    @property
    def failure(self) -> str:
        """Why the program was not executed, in words; empty if it was, or if nothing is known yet."""
        self._read()
        match self._told.decode("ascii", "replace").strip():
            case "":
                return ""
            case told if told == _JOIN:
                return "the process could not enter its cgroup; its log has the reason"
            case _:
                return f"cannot execute {self._program}: the kernel has refused it; its log has the reason"

    def _read(self) -> None:
        if self._reading is None or self._writing >= 0:
            return
        with suppress(BlockingIOError):
            while part := os.read(self._reading, 100):
                self._told += part
            self.close()


def launch_command(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words that a shell is started with to execute a command in the end.

    Args:
        command: program and arguments, which the program is given unchanged.
        environment: what the shell is started with, and the program too.
    """
    odd = [f"{name}={value}" for name, value in environment.items() if not _is_identifier(name)]
    if odd:
        command = ("env", *odd, *command)
    unset = " ".join(name for name in _SHELL_ONLY if name not in environment)
    return SHELL, "-c", _SCRIPT % f"unset {unset}; ", "launcher", *command


def check_executable(program: str, search_path: Sequence[str]) -> None:
    """Check what execve(2) checks, as far as that can be told beforehand.

    Args:
        program: a path, or a name to be searched.
        search_path: directories in which a name without a slash is searched.

    Raises:
        OSError: with the number that execve(2) would set.
    """
    if "/" in program:
        _check_file(program)
        return
    refusal: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in search_path:
        try:
            _check_file(os.path.join(folder, program))  # noqa: PTH118 - an empty one is the cwd
        except PermissionError as error:
            refusal = error
        except (FileNotFoundError, NotADirectoryError):
            continue
        else:
            return
    raise refusal


def _check_file(path: str) -> None:
    found = os.stat(path)  # noqa: PTH116 - a Path costs, and changes some
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # What may be executed and not read is left to the kernel.
    with suppress(PermissionError), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
        if not file.read(4).startswith(_FORMATS):
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))


def _is_identifier(name: str) -> bool:
    return name.isascii() and name.isidentifier()
