"""The keeper: `python -m instance_manager.guard.keeper GUARD FD NAME=COMMAND...`, a child of the guard.

It starts the helpers and closes the descriptor FD. It restarts each one that dies, without end, and writes
what they print into the guard's log, up to a rate. At SIGTERM it ends them and itself. When the process
GUARD is no longer its parent, it starts none again, and ends after the last one.
"""

import errno
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from instance_manager.guard import proc
from instance_manager.guard.helpers import GIVE_UP_DELAY, GRACE, parse
from instance_manager.guard.log import LONGEST_VALUE, Log
from instance_manager.guard.status import Status
from instance_manager.platform.backoff import exponential_backoff
from instance_manager.platform.linux import become_subreaper

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
"""Seconds from the death of a helper to its restart; the delay doubles from the first to the longest."""
STEADY = 10.0
"""Seconds; a helper that ran this long is restarted after the first delay."""
MOST_LINES = 100
MOST_BYTES = 64 << 10
"""What each helper may have logged in a second; more is left out, and counted."""
PAUSE = 0.1
"""Seconds between looks at what a helper prints that has printed more than that: reading costs time, too."""
_LOOK_AGAIN = 0.05
"""Seconds between looks at the end, when what ends may leave children of its own."""
_CHUNK = 65536
_LAST_CHUNKS = 16
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC}
"""Errors that say that there is no such program, which another attempt in a moment would only repeat."""


class Helper:
    """One helper: its process, its output, and when to start it again."""

    def __init__(self, name: str, command: list[str], log: Log) -> None:
        self._name = name
        self._command = command
        self._log = log
        self._delays = exponential_backoff(FIRST_DELAY, LONGEST_DELAY)
        self._started = 0.0
        self._rest = b""
        self._second = 0.0
        """When the second began in which so many lines and bytes were logged."""
        self._lines = 0
        self._bytes = 0
        self._left_out = 0
        """Lines left out since the last one that was logged."""
        self.read_at = 0.0
        """When to read what it prints, by the monotonic clock."""
        # One pipe for all its processes; the keeper holds both ends, so it never reads the end of it.
        self.output, self._writer = os.pipe()
        os.set_blocking(self.output, False)
        self.pid = 0
        """0 while it does not run."""
        self.start_at: float | None = None
        """When to start it again, by the monotonic clock; None while it runs."""

    def start(self, now: float) -> None:
        """Start it, in a process group of its own."""
        self.start_at = None
        try:
            self.pid = os.posix_spawnp(
                self._command[0],
                self._command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._writer, 1),
                    (os.POSIX_SPAWN_DUP2, self._writer, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                # It would die of SIGPIPE if it printed something while no keeper reads it.
                setsigdef=signal.valid_signals() - {signal.SIGPIPE},
            )
        except OSError as error:
            reason = f"{self._command[0]}: {error.strerror}"
            self._log.error("helper cannot be started", helper=self._name, error=reason)
            self._start_later(now, LONGEST_DELAY if error.errno in _ABSENT else next(self._delays))
            return
        self._started = now
        self._log.info("helper started", helper=self._name, helper_pid=self.pid, command=self._command[0])

    def ended(self, status: Status, now: float, *, asked_to_end: bool, again: bool = True) -> None:
        """Note that it has ended, before it is reaped; what is left of its process group is killed.

        Args:
            status: how it has ended.
            now: by the monotonic clock.
            asked_to_end: whether the keeper has ended it.
            again: whether it is to be started again, unless the keeper has ended it.
        """
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self.read(now, _LAST_CHUNKS)
        ran = now - self._started
        tell = self._log.info if asked_to_end else self._log.warning
        tell(
            "helper ended" if asked_to_end else "helper died",
            helper=self._name,
            helper_pid=self.pid,
            status=str(status),
            ran_seconds=round(ran, 3),
            **self._gap(),
        )
        self.pid = 0
        if asked_to_end or not again:
            return
        if ran >= STEADY:
            self._delays = exponential_backoff(FIRST_DELAY, LONGEST_DELAY)
        self._start_later(now, next(self._delays))

    def read(self, now: float, chunks: int = 1) -> None:
        """Log what it has printed, up to so many chunks of it, and not more than it may in a second."""
        if now >= self._second + 1:
            self._second, self._lines, self._bytes = now, 0, 0
        with suppress(BlockingIOError):
            for _ in range(chunks):
                *lines, self._rest = (self._rest + os.read(self.output, _CHUNK)).split(b"\n")
                if len(self._rest) > LONGEST_VALUE:
                    lines, self._rest = [*lines, self._rest], b""
                self._log_lines(lines)
        if self._left_out:
            self.read_at = now + PAUSE

    def _log_lines(self, lines: list[bytes]) -> None:
        for number, line in enumerate(lines):
            size = min(len(line), LONGEST_VALUE)
            if self._lines >= MOST_LINES or self._bytes + size > MOST_BYTES:
                self._left_out += len(lines) - number
                return
            self._lines += 1
            self._bytes += size
            text = line[:LONGEST_VALUE].decode(errors="replace")
            self._log.info("helper output", helper=self._name, line=text, **self._gap())

    def _gap(self) -> dict[str, int]:
        """Return what to add to a line that follows lines left out."""
        left_out, self._left_out = self._left_out, 0
        return {"lines_left_out": left_out} if left_out else {}

    def _start_later(self, now: float, delay: float) -> None:
        self.start_at = now + delay
        self._log.info("helper will be started again", helper=self._name, in_seconds=delay)


class Keeper:
    """Keeps helpers running until SIGTERM, or until its guard and then the last one of them has ended."""

    def __init__(self, helpers: Sequence[Helper], log: Log, guard: int) -> None:
        """Start nothing yet; `guard` is the PID of the guard."""
        self._helpers = helpers
        self._log = log
        self._guard = guard
        self._guard_ended = -1
        """A pidfd of the guard; -1 when it has ended, or there is none."""
        self._asked_to_end = False
        self._woken, wake = os.pipe()
        for fd in (self._woken, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD, signal.SIGTERM])
        self._poll = select.poll()
        with suppress(OSError):  # it has ended already, which its PID says as well
            self._guard_ended = os.pidfd_open(guard)
            self._poll.register(self._guard_ended, select.POLLIN)
        for fd in (self._woken, *(helper.output for helper in helpers)):
            self._poll.register(fd, select.POLLIN)

    def start(self) -> None:
        """Start all helpers."""
        for helper in self._helpers:
            helper.start(time.monotonic())

    def run(self) -> None:
        """Restart helpers until SIGTERM, then end them; without a guard, until none is left."""
        while not self._asked_to_end and (self._guarded() or proc.living_children()):
            due = [helper.start_at for helper in self._helpers if helper.start_at is not None]
            self._wait(max(0.0, min(due) - time.monotonic()) if due else None)
            now = time.monotonic()
            self._reap(now)
            for helper in self._helpers:
                if helper.start_at is not None and now >= helper.start_at and self._guarded():
                    helper.start(now)
        if self._asked_to_end:
            self._end_all()

    def _guarded(self) -> bool:
        """Return whether the guard lives; if not, nothing is to be started again: another guard does that."""
        if os.getppid() == self._guard:
            return True
        for helper in self._helpers:
            helper.start_at = None
        return False

    def _end(self, *_: object) -> None:
        self._asked_to_end = True

    def _wait(self, seconds: float | None) -> None:
        """Wait for a signal, and read what helpers print meanwhile."""
        begin = time.monotonic()
        pauses = [helper.read_at - begin for helper in self._helpers]
        for helper, pause in zip(self._helpers, pauses, strict=True):
            self._poll.modify(helper.output, 0 if pause > 0 else select.POLLIN)
        waits = [pause for pause in pauses if pause > 0] + ([] if seconds is None else [seconds])
        readable = {fd for fd, _ in self._poll.poll(min(waits) * 1000 if waits else None)}
        if self._woken in readable:
            with suppress(BlockingIOError):
                os.read(self._woken, _CHUNK)
        if self._guard_ended in readable:
            self._poll.unregister(self._guard_ended)
            os.close(self._guard_ended)
            self._guard_ended = -1
            self._log.warning("guard is gone: its helpers are not started again", guard=self._guard)
        for helper in self._helpers:
            if helper.output in readable:
                helper.read(time.monotonic())

    def _reap(self, now: float) -> None:
        """Reap what has ended: helpers, and what they have left behind."""
        while (ended := proc.first_ended()) is not None:
            for helper in self._helpers:
                if helper.pid == ended.si_pid:
                    again = self._guarded()
                    helper.ended(Status.of(ended), now, asked_to_end=self._asked_to_end, again=again)
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED)

    def _end_all(self) -> None:
        """End every child; helpers of which nothing is known any more are among them."""
        kill_at = time.monotonic() + GRACE
        left = proc.living_children()
        self._log.info("ending helpers", processes=len(left), grace_seconds=GRACE)
        asked = set(left)
        for pid in left:
            _send(pid, signal.SIGTERM)
            _send(pid, signal.SIGCONT)  # one that is stopped could not end
        while left and (now := time.monotonic()) < kill_at + GIVE_UP_DELAY:
            self._wait(_LOOK_AGAIN)
            for pid in left:
                if now >= kill_at or pid not in asked:
                    _send(pid, signal.SIGKILL)
            self._reap(now)
            left = proc.living_children()
        self._reap(time.monotonic())
        if left:
            self._log.error("helpers left behind", processes=len(left))


def main(argv: Sequence[str]) -> None:
    """Keep helpers running; see the module."""
    log = Log()
    try:
        become_subreaper()
    except OSError as error:
        log.warning("what helpers leave behind is taken for what instances do", error=str(error))
    guard, ready = map(int, argv[:2])
    keeper = Keeper([Helper(*parse(helper), log) for helper in argv[2:]], log, guard)
    os.set_inheritable(ready, False)
    keeper.start()
    os.close(ready)
    keeper.run()


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child, and to its process group if it leads one."""
    with suppress(OSError):
        (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, number)


if __name__ == "__main__":
    main(sys.argv[1:])
