"""A process that is handled through a pidfd, so that a recycled PID is never hit."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from instance_manager.adapters.process import proc
from instance_manager.adapters.process.descendants import DescendantReaper
from instance_manager.core.process import ExitStatus, Identity

log = structlog.get_logger(__name__)


class PidfdProcess:
    """A process with a pidfd; the common part of a child and an adopted process."""

    def __init__(
        self,
        pidfd: int,
        identity: Identity,
        uuid: str,
        descendants: DescendantReaper,
        on_end: Callable[[], None],
    ) -> None:
        self.identity = identity
        self._uuid = uuid
        self._descendants = descendants
        self._pidfd: int | None = pidfd
        asyncio.get_running_loop().add_reader(pidfd, on_end)

    @property
    def descriptor(self) -> int:
        """The pidfd, -1 if it was closed."""
        return -1 if self._pidfd is None else self._pidfd

    def close(self) -> None:
        """Close the pidfd and leave the process alone."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def signal(self, name: str, *, session: bool) -> None:
        """Send a signal to the process, with `session` to its process group too."""
        if self._pidfd is None:
            return
        number = signal.Signals[name]
        log.debug("signal sent", signal=name, pid=self.identity.pid, group=session)
        # PermissionError: it runs as another user; that it does not end will be reported.
        if session:
            with suppress(ProcessLookupError, PermissionError):
                # It is not reaped yet, so the PID still identifies this process group.
                os.killpg(self.identity.pid, number)
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, number)

    def describe(self) -> str:
        """Return in words what the process is doing."""
        return proc.describe(self.identity.pid)

    async def end_tree(self) -> str | None:
        """Kill the descendants until none is left, or until the timeout."""
        return await self._descendants.end(self.identity, self._uuid)


class OsChild(PidfdProcess):
    """A child of this process; implements `app.interfaces.Child`."""

    def __init__(
        self,
        pidfd: int,
        identity: Identity,
        uuid: str,
        *,
        on_exit: Callable[["OsChild", ExitStatus], None],
        descendants: DescendantReaper,
    ) -> None:
        super().__init__(pidfd, identity, uuid, descendants, self.collect)
        self._on_exit = on_exit

    def collect(self) -> None:
        """Report the exit status once, if the process has ended."""
        if self._pidfd is None:
            return
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self.close()
        exited = result.si_code == os.CLD_EXITED
        status = ExitStatus(result.si_status) if exited else ExitStatus(signal=_signal_name(result.si_status))
        log.debug("reaped", pid=self.identity.pid, uuid=self._uuid, status=str(status))
        self._on_exit(self, status)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {number}"
