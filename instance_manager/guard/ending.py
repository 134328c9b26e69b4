"""Ending the instances in order, when the guard has to end and no daemon does it."""

import os
import signal
from collections.abc import Collection
from contextlib import suppress

from instance_manager.guard import proc
from instance_manager.guard.log import Log
from instance_manager.platform import contract

GRACE = 20.0
"""Seconds from SIGINT to SIGKILL, unless a daemon has written down another time."""
SHORT_GRACE = 2.0
"""What they get after a daemon that has ended in order, or has spent the grace period."""
GIVE_UP_DELAY = 5.0
"""Seconds from SIGKILL until those that remain are given up."""
_LOOK_AGAIN = 0.05
"""Seconds between looks after SIGKILL, when what is killed may leave children of its own."""


def forget_settings(state_dir: str) -> None:
    """Remove what daemons of an earlier guard have written down; it does not concern those of this one."""
    for name in (contract.ON_STOP, contract.LOG_SETTINGS):
        with suppress(OSError):  # there is none, or the next daemon cannot write there either, and says so
            os.unlink(f"{state_dir}/{name}")  # noqa: PTH108 - pathlib costs a MiB


def grace_period(state_dir: str, log: Log) -> float | None:
    """Return the seconds that instances get to end, None if they are to be left alone.

    The daemon writes down what its options say. If that is missing or cannot be read, they are ended.
    """
    try:
        return contract.parse_on_stop(proc.read(f"{state_dir}/{contract.ON_STOP}"))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("what is to happen to instances cannot be read; they are ended", error=str(error))
    return GRACE


class Ending:
    """Ends all children of this process; `step` is to be called at once, after each change, and after `wait`.

    This process alone reaps them, so a PID that it has not reaped yet is still that of its child.
    """

    def __init__(self, grace: float, now: float, log: Log) -> None:
        """Give them `grace` seconds from `now`, the time of a monotonic clock."""
        self._log = log
        self._grace = grace
        self._kill_at = now + grace
        self._asked: list[int] | None = None
        self.over = False
        """Whether none is left, or those that are have been given up."""

    def hurry(self, now: float) -> None:
        """Do not wait for the grace period."""
        self._kill_at = min(self._kill_at, now)

    def wait(self, now: float) -> float:
        """Return the seconds until the next step, if nothing happens before."""
        return self._kill_at - now if now < self._kill_at else _LOOK_AGAIN

    def step(self, now: float, spared: Collection[int] = ()) -> None:
        """Ask, or kill what is to be killed; `spared` are the PIDs of children that are left alone."""
        self.over = now >= self._kill_at + GIVE_UP_DELAY
        try:
            left = [pid for pid in proc.living_children() if pid not in spared]
            if self._asked is None and all(map(proc.is_killed, left)):
                self.hurry(now)  # the daemon has given them their time
        except OSError as error:
            self._log.warning("instances cannot be listed", error=str(error))
            return
        asked = self._asked = self._ask(left) if self._asked is None else self._asked
        for pid in left:
            # One that was not asked was left behind by one that has ended.
            if now >= self._kill_at or pid not in asked:
                _signal(pid, signal.SIGKILL)
        if self.over and left:
            self._log.error("instances left behind", instances=len(left))
        elif not left:
            self.over = True
            self._log.info("instances ended")

    def _ask(self, pids: list[int]) -> list[int]:
        self._log.warning("ending instances", instances=len(pids), grace_seconds=self._grace)
        for pid in pids:
            _signal(pid, signal.SIGINT)
            _signal(pid, signal.SIGCONT)  # one that is stopped could not end
        return pids


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except OSError:  # it runs as another user, or is just ending: it is told as left, or gone
        pass
