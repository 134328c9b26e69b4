"""Helper daemons, such as tgtd, as the guard sees them: one process, the keeper, keeps them running.

They are the keeper's descendants and never the guard's children, whatever they fork: nobody can take one of
them for an instance, or what an instance has left behind for one of them.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from instance_manager.guard.child import Child, start
from instance_manager.guard.log import Log
from instance_manager.guard.status import Status
from instance_manager.platform import contract
from instance_manager.platform.backoff import exponential_backoff

KEEPER = ("-P", "-m", "instance_manager.guard.keeper")
GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL for the helpers."""
GIVE_UP_DELAY = 1.0
"""Seconds from SIGKILL until the keeper gives up those that remain."""
_READY_WITHIN = 10.0
"""Seconds that the keeper has to start the helpers, before the daemon is started all the same."""
_KEEPER_GRACE = GRACE + GIVE_UP_DELAY + 1.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
_STEADY = 10.0
"""Seconds; a keeper that ran this long is restarted after the first delay."""


def parse(helper: str) -> tuple[str, list[str]]:
    """Return the name and the command in NAME=COMMAND; it is split as by a shell, but not run by one.

    Raises:
        ValueError: if it is something else.
    """
    import shlex  # noqa: PLC0415 - most guards have no helpers

    name, separator, command = helper.partition("=")
    if not (separator and name and name.isprintable() and " " not in name):
        raise ValueError(f"{helper!r} is not NAME=COMMAND")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command of {name} cannot be split: {error}") from None
    if not words or not words[0]:
        raise ValueError(f"{name} has no command")
    return name, words


class Helpers:
    """Starts the keeper, and restarts it when it dies; does nothing if there are no helpers."""

    def __init__(self, helpers: Sequence[str], log: Log, signals: set[signal.Signals]) -> None:
        """Start nothing yet; `signals` are blocked, and SIGCHLD is among them."""
        self._helpers = helpers
        self._log = log
        self._signals = signals
        self._keeper: Child | None = None
        self._delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._start_at: float | None = None
        """When to start the keeper again; by the monotonic clock."""

    @property
    def keeper(self) -> int:
        """The keeper's PID, 0 if it does not run."""
        return self._keeper.pid if self._keeper else 0

    def start(self) -> None:
        """Start the keeper, and wait until it has started the helpers."""
        self._start_at = None
        if not self._helpers:
            return
        ready, told = os.pipe()
        os.set_inheritable(told, True)
        try:
            self._keeper = start(
                [sys.executable, *KEEPER, str(os.getpid()), str(told), *self._helpers],
                os.environ | {contract.UUID_VARIABLE: contract.NO_INSTANCE},
                keep_ignored=set(),
                blocked=self._signals - {signal.SIGCHLD},
            )
        except OSError as error:
            self._log.error("helpers cannot be started", error=str(error))
            self._start_later()
        finally:
            os.close(told)
            _wait_readable(ready, _READY_WITHIN if self._keeper else 0.0)
            os.close(ready)

    def keeper_ended(self, status: Status) -> None:
        """Note that the keeper has ended and was reaped. Its helpers run on until they end by themselves."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.close()
        self._log.error("keeper of the helpers died", keeper=keeper.pid, status=str(status))
        if keeper.ran >= _STEADY:
            self._delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._start_later()

    def wait(self, now: float) -> float | None:
        """Return the seconds until the keeper is to be started again, None if it is not."""
        return None if self._start_at is None else max(0.0, self._start_at - now)

    def start_if_due(self, now: float) -> None:
        """Start the keeper again when it is time."""
        if self._start_at is not None and now >= self._start_at:
            self.start()

    def stop(self) -> None:
        """End the helpers: SIGTERM, then SIGKILL; returns when they have ended, or have been given up."""
        if self._keeper is None:
            return
        self._keeper.signal(signal.SIGTERM)
        self._keeper.signal(signal.SIGCONT)  # one that is stopped could not end them
        give_up = time.monotonic() + _KEEPER_GRACE
        while os.waitid(os.P_PID, self._keeper.pid, os.WEXITED | os.WNOHANG) is None:
            left = give_up - time.monotonic()
            if left <= 0:
                self._log.error("helpers left behind: their keeper does not end", keeper=self._keeper.pid)
                self._keeper.signal(signal.SIGKILL)
                break
            signal.sigtimedwait({signal.SIGCHLD}, left)

    def _start_later(self) -> None:
        self._start_at = time.monotonic() + next(self._delays)


def _wait_readable(fd: int, seconds: float) -> None:
    """Wait until a pipe has something to read, or nobody holds its other end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(seconds * 1000)
