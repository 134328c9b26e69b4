"""Pidfds: the only way to signal another process, since a number may be another's by the time it arrives."""

import errno
import os
import select
import signal
from contextlib import suppress

from instance_manager.core.attribution import Evidence, Unread
from instance_manager.core.process import Identity
from instance_manager.platform import proc

_SIGNAL_PROCESS_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9


class PidfdUnsupportedError(Exception):
    """This system does not let us open or use pidfds; the message says why, and what to do."""


def check_pidfds() -> None:
    """Check that processes can be handled through pidfds here.

    Raises:
        PidfdUnsupportedError: if they cannot.
    """
    call = "pidfd_open"
    try:
        pidfd = os.pidfd_open(os.getpid())
        try:
            call = "pidfd_send_signal"
            signal.pidfd_send_signal(pidfd, 0)
            call = "waitid with P_PIDFD"
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        finally:
            os.close(pidfd)
    except OSError as error:
        raise PidfdUnsupportedError(
            f"cannot supervise processes: {call} is refused ({error.strerror}); it needs Linux 5.4 or later, "
            "and a seccomp profile of the container that allows it"
        ) from error


def open_pidfd(pid: int) -> int | None:
    """Return a pidfd, None if there is no such process.

    Raises:
        proc.UnreadableError: if none can be had.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        # A thread has this number: the process whose PID it was is gone.
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            return None
        raise proc.UnreadableError(f"no pidfd can be had: {error.strerror}") from error


def has_ended(pidfd: int) -> bool:
    """Return whether the process of a pidfd has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send(pidfd: int, number: int) -> None:
    """Send a signal; does nothing if the process has ended, or runs as another user."""
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)


def send_to_group(pidfd: int, number: int) -> bool:
    """Send a signal to the process group that this leads; False if the kernel cannot do that by pidfd."""
    try:
        signal.pidfd_send_signal(pidfd, number, None, _SIGNAL_PROCESS_GROUP)
    except (ProcessLookupError, PermissionError):
        return True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def gather(identity: Identity) -> tuple[Evidence, int | None]:
    """Return the evidence about a recorded process, and a pidfd of the one that has its PID now, if any."""
    try:
        pidfd = open_pidfd(identity.pid)
    except proc.UnreadableError as error:
        return Evidence(Unread(str(error)), None, ended=False), None
    if pidfd is None:
        return Evidence(present=False, start_time=None, ended=False), None
    try:
        stat = proc.read_stat(identity.pid)
        start_time: int | Unread | None = stat.start_time if stat else None
    except proc.UnreadableError as error:
        start_time = Unread(str(error))
    return Evidence(present=True, start_time=start_time, ended=has_ended(pidfd)), pidfd
