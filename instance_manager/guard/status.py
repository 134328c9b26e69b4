"""How a process ended."""

import os
import signal

from instance_manager.platform.contract import format_exit


class Status:
    """An exit code, or the signal that killed a process."""

    __slots__ = ("code", "signal")

    def __init__(self, code: int = 0, signal: int = 0) -> None:
        self.code = code
        self.signal = signal
        """Number of the signal, 0 for none."""

    @classmethod
    def of(cls, ended: os.waitid_result) -> "Status":
        """Return the status in a result of waitid(2)."""
        return cls(code=ended.si_status) if ended.si_code == os.CLD_EXITED else cls(signal=ended.si_status)

    @property
    def exit_code(self) -> int:
        """The exit code as a shell would report it."""
        return 128 + self.signal if self.signal else self.code

    def __str__(self) -> str:
        return format_exit(self.code, signal_name(self.signal) if self.signal else "")


def signal_name(number: int) -> str:
    """Return a signal's name, or its number if it has none, like most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
