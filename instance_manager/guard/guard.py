"""The guard itself: a loop that waits for signals, including SIGCHLD for the end of a child."""

import os
import signal
import time
from collections.abc import Mapping

from instance_manager.guard import ending, proc, restarts
from instance_manager.guard.child import Child, start
from instance_manager.guard.ending import Ending
from instance_manager.guard.helpers import Helpers
from instance_manager.guard.log import Log
from instance_manager.guard.options import Options
from instance_manager.guard.records import ExitRecords
from instance_manager.guard.restarts import Restarts
from instance_manager.guard.status import Status, signal_name
from instance_manager.platform.signals import SENT, STOPPING

SIGNALS = {*SENT, signal.SIGCHLD}
"""The signals that the guard handles; all but SIGCHLD are forwarded."""

_FINAL = {0, 2}
"""Exit codes that a restart would only repeat, success and wrong usage; final unless instances live."""

_CANNOT_START = 126
_BATCH = 64
"""Largest number of children reaped before other signals are handled."""


class Guard:
    """Runs one program, and restarts it, until its end is final; `signals` must be blocked already."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        options: Options,
        *,
        records: ExitRecords,
        log: Log,
        helpers: Helpers,
        signals: set[signal.Signals],
    ) -> None:
        self._command = command
        self._environment = environment
        self._options = options
        self._restarts = Restarts(options.restarts, options.within * 60)
        self._records = records
        self._log = log
        self._helpers = helpers
        self._signals = signals
        self._child: Child | None = None
        self._start_at: float | None = None
        """When to restart it, while it is not running; by the monotonic clock."""
        self._asked_at: float | None = None
        """When it was asked to end; by the monotonic clock."""
        self._before: set[int] = set()
        """Children that there were before its own."""
        self._left_alone = False
        """Whether instances live on, and with them the helpers."""
        self._ending: Ending | None = None
        self._slow = False
        """All restarts are used up, and instances live."""
        self._more_to_reap = False
        self._exit_code: int | None = None

    def run(self) -> int:
        """Run until the end; returns the exit code."""
        self._before = self._children() or set()
        # Before the daemon: an engine that finds no tgtd starts one of its own, which would end with it.
        self._helpers.start()
        self._start()
        while self._exit_code is None or not (self._ending is None or self._ending.over):
            number = self._next_signal()
            if number is None or number == signal.SIGCHLD:
                self._reap()
            else:
                self._forward_signal(number)
            now = time.monotonic()
            if self._start_at is not None and now >= self._start_at:
                self._start()
            if self._ending is not None:
                self._ending.step(now, spared=self._spared())
            self._helpers.start_if_due(now)
        if not self._left_alone:
            self._helpers.stop()
        return self._exit_code

    def _next_signal(self) -> int | None:
        """Wait for a signal; returns None if there is something else to do."""
        now = time.monotonic()
        timeouts = [seconds for seconds in [self._helpers.wait(now)] if seconds is not None]
        if self._more_to_reap:
            timeouts.append(0.0)
        elif self._ending is not None:
            timeouts.append(self._ending.wait(now))
        elif self._start_at is not None:
            timeouts.append(max(0.0, self._start_at - now))
        if not timeouts:
            return signal.sigwaitinfo(self._signals).si_signo
        info = signal.sigtimedwait(self._signals, min(timeouts))
        return info.si_signo if info else None

    def _start(self) -> None:
        self._start_at = None
        try:
            self._child = start(
                self._command,
                self._environment,
                keep_ignored=SIGNALS - self._signals,
                blocked=self._signals - {signal.SIGCHLD},
            )
        except OSError as error:
            self._log.error("daemon cannot be started", error=str(error))
            self._died(Status(code=_CANNOT_START), ran=0.0)
            return
        self._log.info("daemon started", daemon=self._child.pid, command=self._options.name)

    def _reap(self) -> None:
        """Reap ended children, a limited number at a time so that signals are not delayed."""
        for _ in range(_BATCH):
            ended = proc.first_ended()
            if ended is None:
                self._more_to_reap = False
                return
            status = Status.of(ended)
            child = self._child
            if ended.si_pid == self._helpers.keeper:
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED)
                self._helpers.keeper_ended(status)
                continue
            if child is None or child.pid != ended.si_pid:
                self._records.write(ended.si_pid, status)
            # After the record: once a process is gone, its record is there.
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED)
            if child is not None and child.pid == ended.si_pid:
                child.close()
                self._child = None
                self._ended(child, status)
        self._more_to_reap = True

    def _ended(self, child: Child, status: Status) -> None:
        """Decide what to do after the guarded program has ended."""
        final = not status.signal and status.code in _FINAL
        if self._asked_at is not None or (final and not self._instances()):
            self._log.info("daemon ended", daemon=child.pid, status=str(status))
            self._end(status.exit_code)
        else:
            self._log.warning(
                "daemon died", daemon=child.pid, status=str(status), ran_seconds=round(child.ran, 3)
            )
            self._died(status, child.ran)

    def _died(self, status: Status, ran: float) -> None:
        now = time.monotonic()
        delay = self._restarts.delay_after(ran, now)
        if delay is None:
            instances = self._instances()
            if not instances:
                self._log.error("gave up", error=f"{self._explain(status)}. No instance lives any more.")
                self._exit_code = status.exit_code
                return
            delay = restarts.SLOW_DELAY
            if not self._slow:
                self._log.error(
                    "daemon keeps dying",
                    error=f"{self._explain(status)}. {_why_not_give_up(instances, delay)}",
                )
        self._slow = delay == restarts.SLOW_DELAY
        self._log.info("daemon will be started again", in_seconds=delay)
        self._start_at = now + delay

    def _instances(self) -> int:
        """Return how many instances live, which the end of the guard would kill or leave unattended."""
        try:
            return proc.living_instances()
        except OSError as error:
            self._log.warning("instances cannot be counted; one is assumed to live", error=str(error))
            return 1

    def _explain(self, status: Status) -> str:
        look = "its own last lines above say why"
        if status.signal == signal.SIGKILL:
            look = "look for the out-of-memory killer in the kernel's log, at memory limits"
        elif status.signal:
            look = "it is a crash: look for a core dump and at the kernel's log"
        elif status.code == _CANNOT_START:
            look = "the line above says why it cannot be started"
        options = self._options
        return (
            f"the daemon died with {status} after {options.restarts} restarts within {options.within:g} "
            f"minutes; {look}"
        )

    def _forward_signal(self, number: int) -> None:
        """Forward a signal, or end if the program is waiting to be restarted."""
        name = signal_name(number)
        to_end = number in STOPPING
        if self._child is not None:
            if to_end and self._asked_at is None:
                self._asked_at = time.monotonic()
            try:
                self._child.signal(number)
            except OSError as error:
                self._log.warning("signal not forwarded", signal=name, error=str(error))
            else:
                self._log.info("signal forwarded", signal=name, daemon=self._child.pid)
        elif to_end and self._ending is not None:
            self._ending.hurry(time.monotonic())
        elif to_end:
            self._log.warning("ended before the daemon was started again", signal=name)
            self._start_at = None
            self._end(128 + number)
        else:
            self._log.info("signal dropped: the daemon does not run", signal=name)

    def _end(self, code: int) -> None:
        """End with a code; end first what the daemon has left, unless it was to leave it."""
        self._exit_code = code
        children = self._children()
        if children is not None and not children - self._spared():
            return
        grace, now = ending.grace_period(self._options.state_dir, self._log), time.monotonic()
        if grace is None:
            self._left_alone = True
            self._log.info("what instances there are live on, and the helpers with them")
            return
        spent = 0.0 if self._asked_at is None else now - self._asked_at
        # After an orderly end it is only what the daemon does not know of.
        left = grace - spent if code else 0.0
        self._ending = Ending(max(left, min(grace, ending.SHORT_GRACE)), now, self._log)

    def _spared(self) -> set[int]:
        """Return the children that are no instances."""
        return {*self._before, self._helpers.keeper}

    def _children(self) -> set[int] | None:
        """Return the children that live; None if that cannot be told, which is logged."""
        try:
            return set(proc.living_children())
        except OSError as error:
            self._log.warning("children cannot be listed", error=str(error))
            return None


def _why_not_give_up(instances: int, delay: float) -> str:
    return (
        f"Instances alive: {instances}. They would be lost with the guard, so it does not give up: it starts "
        f"the daemon every {delay:g} seconds until that helps or no instance lives. Repair what it dies of"
    )
