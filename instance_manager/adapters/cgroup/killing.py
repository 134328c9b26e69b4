"""Killing all processes of a cgroup where the kernel does not do that: before Linux 5.14, or read-only."""

import asyncio
import errno
import os
import signal
from collections.abc import Collection
from contextlib import suppress

import structlog

from instance_manager.adapters.cgroup.folder import Folder

log = structlog.get_logger(__name__)

_AT_ONCE = 64
"""Processes for which pidfds are open at the same time."""
_MOST_LOOKS = 50


async def kill(folder: Folder) -> None:
    """Send SIGKILL to all processes of a cgroup and below it, those included that are being started.

    Raises:
        OSError: if not even their PIDs can be read.
    """
    try:
        folder.write("cgroup.kill", "1")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return
        log.debug("members are killed one by one", cgroup=folder.name, reason=error.strerror)
        await _kill_one_by_one(folder)


async def _kill_one_by_one(folder: Folder) -> None:
    """Stop all first, until none is found that was started meanwhile: those that are stopped start none."""
    with suppress(OSError):
        folder.write("cgroup.freeze", "1")
    stopped: set[int] = set()
    for _ in range(_MOST_LOOKS):
        fresh = set(folder.members()) - stopped
        if not fresh:
            break
        await _send(folder, fresh, signal.SIGSTOP)
        stopped |= fresh
    await _send(folder, set(folder.members()), signal.SIGKILL)


async def _send(folder: Folder, pids: Collection[int], number: signal.Signals) -> None:
    """Send a signal to members, each through a pidfd."""
    waiting = [pid for pid in pids if pid]
    while waiting:
        some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        pidfds = {}
        try:
            for pid in some:
                with suppress(OSError):  # it has ended, or there is no descriptor left, till the next round
                    pidfds[pid] = os.pidfd_open(pid)
            # Looked at after the pidfds were opened: from now on these PIDs cannot become others'.
            for pid in pidfds.keys() & set(folder.members()):
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfds[pid], number)
        finally:
            for pidfd in pidfds.values():
                os.close(pidfd)
        await asyncio.sleep(0)
