"""How a process ended."""

import os
import signal


class Status:
    """An exit code, or the signal that a process died of."""

    __slots__ = ("code", "signal")

    def __init__(self, code: int = 0, signal: int = 0) -> None:
        self.code = code
        self.signal = signal
        """Its number, 0 if there was none."""

    @classmethod
    def of(cls, ended: os.waitid_result) -> "Status":
        """Take it from what waitid(2) tells."""
        return cls(code=ended.si_status) if ended.si_code == os.CLD_EXITED else cls(signal=ended.si_status)

    @property
    def exit_code(self) -> int:
        """What a shell would make of it."""
        return 128 + self.signal if self.signal else self.code

    def __str__(self) -> str:
        return f"signal {signal_name(self.signal)}" if self.signal else f"code {self.code}"


def signal_name(number: int) -> str:
    """Return a signal's name; its number for a real-time signal, most of which have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
