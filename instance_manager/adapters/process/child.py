"""One spawned process and its descendants, reached through pidfds: a recycled PID is never hit."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress

from instance_manager.adapters.process import proc
from instance_manager.core.process import ExitStatus, Identity

TREE_TIMEOUT = 5.0
"""Seconds that killed descendants get to end before they are reported as remaining."""


class OsChild:
    """A process that was spawned by this one; implements `app.interfaces.Child`."""

    def __init__(
        self,
        pidfd: int,
        identity: Identity,
        uuid: str,
        *,
        on_exit: Callable[["OsChild", ExitStatus], None],
        strays: Callable[[], Iterable[int]],
    ) -> None:
        self.identity = identity
        self._uuid = uuid
        self._pidfd: int | None = pidfd
        self._on_exit = on_exit
        self._strays = strays
        asyncio.get_running_loop().add_reader(pidfd, self.collect)

    def collect(self) -> None:
        """Read the exit status if the process has ended, and report it; once."""
        if self._pidfd is None:
            return
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self.close()
        ended_by_itself = result.si_code == os.CLD_EXITED
        status = (
            ExitStatus(code=result.si_status)
            if ended_by_itself
            else ExitStatus(signal=_signal_name(result.si_status))
        )
        self._on_exit(self, status)

    def close(self) -> None:
        """Let go of the process without ending it."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def signal(self, name: str, *, session: bool) -> None:
        """Send a signal to the process, with `session` to its process group too."""
        if self._pidfd is None:
            return
        number = signal.Signals[name]
        with suppress(ProcessLookupError):
            if session:
                # Not reaped yet, so the PID still names this very group.
                os.killpg(self.identity.pid, number)
            signal.pidfd_send_signal(self._pidfd, number)

    def describe(self) -> str:
        """Say in words what the process is doing."""
        return proc.describe(self.identity.pid)

    async def end_tree(self) -> str | None:
        """Kill what the process left behind, until nothing is left or the time is over.

        A killed descendant hands its own children to this process before it can be waited for, so looking
        again after each round misses none, however fast they fork.
        """
        try:
            async with asyncio.timeout(TREE_TIMEOUT):
                while descendants := self._descendants():
                    for pid in descendants:
                        await _kill(pid)
        except TimeoutError:
            return "; ".join(map(proc.describe, self._descendants())) or None
        return None

    def _descendants(self) -> list[int]:
        """Return the orphans of this process: by the UUID they carry, or by its session."""
        found = []
        for pid in self._strays():
            stat = proc.read_stat(pid)
            if stat is None or stat.state == "Z":
                continue
            if stat.session == self.identity.pid or proc.read_uuid(pid) == self._uuid:
                found.append(pid)
        return found


async def _kill(pid: int) -> None:
    """Kill a child of this process and wait until it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await ended.wait()
        with suppress(ChildProcessError):  # reaped already, on SIGCHLD
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - does not wait
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {number}"
