"""The processes that instances began with, and the numbers of their sessions."""

import os
import time
from dataclasses import dataclass, field

from instance_manager.core.process import Identity
from instance_manager.platform import proc
from instance_manager.platform.proc import Key, exists

_TICKS = os.sysconf("SC_CLK_TCK")


def boot_ticks() -> int:
    """Return the time in the unit of start times: clock ticks since boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


@dataclass(eq=False, slots=True)
class Leader:
    """The process that an instance began with. Its PID is the number of its session."""

    identity: Identity
    uuid: str
    alive_until: int = 0
    """Clock ticks since boot at which it was last known to live: its session was its own until then."""
    holders: set[Key] = field(default_factory=set)
    """Members of its session. While one of them exists, the number cannot become another session's."""

    @property
    def key(self) -> Key:
        """PID and start time."""
        return self.identity.pid, self.identity.start_time

    def holds_session_of(self, stat: proc.Stat) -> bool:
        """Return whether a process whose stat was just read is in this session, not in another of its number.

        Raises:
            proc.UnreadableError: if that cannot be read.
        """
        if stat.session != self.identity.pid:
            return False
        if self.identity.start_time <= stat.start_time < self.alive_until or exists(self.key):
            return True
        self.holders = {key for key in self.holders if exists(key)}
        return bool(self.holders)

    def is_succeeded(self) -> bool:
        """Return whether another process has its PID now, so that the number of its session is not its own.

        Raises:
            proc.UnreadableError: if that cannot be read.
        """
        stat = proc.read_stat(self.identity.pid)
        return stat is not None and stat.start_time != self.identity.start_time
