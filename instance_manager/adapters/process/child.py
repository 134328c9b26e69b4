"""A process that is handled through a pidfd, so that a recycled PID is never hit."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from instance_manager.adapters.process import handles
from instance_manager.adapters.process.launcher import Launch
from instance_manager.app.containment import Cell
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import proc

log = structlog.get_logger(__name__)

_FIRST_LOOK, _LAST_LOOK = 0.02, 1.0
"""Seconds until another look at a process that has ended and that a debugger does not hand over yet."""


class PidfdProcess:
    """A process with a pidfd; the common part of a child and an adopted process."""

    def __init__(self, pidfd: int, identity: Identity, uuid: str, cell: Cell) -> None:
        self.identity = identity
        self.cell = cell
        self._uuid = uuid
        self._pidfd: int | None = pidfd
        cell.led_by(identity, pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

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
        self.cell.prepare_end()
        if session and not handles.send_to_group(self._pidfd, number):
            self._signal_group_by_number(number)
        handles.send(self._pidfd, number)

    def describe(self) -> str:
        """Return in words what the process is doing."""
        return proc.describe(self.identity.pid)

    @property
    def launching(self) -> bool:
        """Whether it is not known yet that it executes its program."""
        return False

    async def launched(self) -> str | None:
        """Return at once: it executes its program."""
        return None

    async def end_tree(self) -> str | None:
        """Kill all that is left in its cell, until that is empty or until the timeout."""
        remains = await self.cell.end()
        if remains is None:
            self.cell.close()
        return remains

    def _signal_group_by_number(self, number: int) -> None:
        """Do nothing: its number may be another group's, and the search finds the members one by one."""

    def _on_end(self) -> None:
        raise NotImplementedError


class OsChild(PidfdProcess):
    """A child of this process; implements `app.interfaces.Child`.

    It is not reaped before its descendants are gone: until then its PID, which is also the number of its
    session and of its process group, cannot become another's.
    """

    def __init__(
        self,
        pidfd: int,
        identity: Identity,
        uuid: str,
        cell: Cell,
        *,
        launch: Launch | None,
        on_exit: Callable[[ExitStatus], None],
        on_reaped: Callable[["OsChild"], None],
    ) -> None:
        super().__init__(pidfd, identity, uuid, cell)
        self._launch = launch
        self._on_exit = on_exit
        self._on_reaped = on_reaped
        self._wait = _FIRST_LOOK
        self._next_look: asyncio.TimerHandle | None = None
        self._exited = False

    def close(self) -> None:
        """Close the pidfd and leave the process alone, unless it has ended."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self._exited and self._pidfd is not None:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            log.debug("reaped", pid=self.identity.pid, uuid=self._uuid)
        if self._launch is not None:
            self._launch.close()
        super().close()

    @property
    def launching(self) -> bool:
        """Whether it is not known yet that it executes its program."""
        return self._launch is not None

    async def launched(self) -> str | None:
        """Wait until it executes its program, in its cell."""
        if self._launch is None:
            return None
        await self._launch.over()
        if self._launch.failure:
            return self._launch.failure
        try:
            if self._exited or not self.cell.excludes(self.identity.pid):
                return None
        except OSError as error:
            return f"cannot tell whether the process is in its cgroup: {error.strerror}"
        return "the process is not in its cgroup: somebody has moved it"

    async def end_tree(self) -> str | None:
        """Kill all that is left in its cell; once that is empty, the process can be reaped."""
        remains = await super().end_tree()
        if remains is None and self._exited:
            self.close()
            self._on_reaped(self)
        return remains

    def _on_end(self) -> None:
        """Report the exit status once."""
        if self._pidfd is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            # Its debugger has to let go of it first; the pidfd is readable all the while.
            self._next_look = loop.call_later(self._wait, self._on_end)
            self._wait = min(self._wait * 2, _LAST_LOOK)
            return
        self._exited = True
        exited = result.si_code == os.CLD_EXITED
        status = ExitStatus(result.si_status) if exited else ExitStatus(signal=_signal_name(result.si_status))
        status = replace(status, cause=self._cause())
        log.debug("ended", pid=self.identity.pid, uuid=self._uuid, status=str(status))
        self._on_exit(status)

    def _cause(self) -> str:
        """Return in words why it has ended, if there is more to be told than its status."""
        return (self._launch.failure if self._launch else "") or self.cell.killed_for_memory()

    def _signal_group_by_number(self, number: int) -> None:
        # Only this process reaps it, and has not: the number is still its group's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.identity.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {number}"
