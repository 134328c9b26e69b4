"""The guarded program's process."""

import os
import signal
import time
from collections.abc import Mapping


class Child:
    """A running process, signalled through a pidfd: a recycled PID is never hit."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._started = time.monotonic()

    @property
    def ran(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def signal(self, number: int) -> None:
        """Send a signal.

        Raises:
            OSError: if it runs as another user.
        """
        signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Close the pidfd, once the process has ended."""
        os.close(self._pidfd)


def start(
    command: list[str],
    environment: Mapping[str, str],
    *,
    keep_ignored: set[signal.Signals],
    blocked: set[signal.Signals],
) -> Child:
    """Start a program with the stdin, stdout and stderr of this process.

    Args:
        command: absolute path of the program, and its arguments.
        environment: the whole environment.
        keep_ignored: signals that it inherits as ignored, if this process ignores them.
        blocked: signals that reach it when it unblocks them: until it can handle them, they would kill it.

    Raises:
        OSError: if there is no such program, or no resources for another process.
    """
    pid = os.posix_spawn(
        command[0],
        command,
        environment,
        # Its own process group: Ctrl-C reaches it once, from the guard, and not from the terminal too.
        setpgroup=0,
        setsigmask=blocked,
        setsigdef=signal.valid_signals() - keep_ignored,
    )
    try:
        return Child(pid, os.pidfd_open(pid))
    except OSError:
        # Without a pidfd it could not be signalled safely. It is not reaped yet, so the PID is still its own.
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED)
        raise
