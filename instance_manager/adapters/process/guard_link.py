"""The guard that has started this daemon, and what the daemon writes down for it (docs/guard.md)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from instance_manager.platform import contract

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GuardLink:
    """How daemon and guard find each other."""

    pid: int | None
    """PID of the guard; None if this daemon runs without one."""
    folder: Path
    """Directory in which the guard and its daemons leave word for each other."""

    @classmethod
    def of(cls, environment: Mapping[str, str], state_dir: Path) -> Self:
        """Return the link that an environment tells of.

        Args:
            environment: that of this process.
            state_dir: the daemon's own state directory, where a guard leaves word by default.
        """
        pid = environment.get(contract.GUARD_VARIABLE, "")
        if not (pid.isdecimal() and int(pid) == os.getppid()):
            return cls(None, state_dir)
        return cls(int(pid), Path(environment.get(contract.GUARD_STATE_DIR_VARIABLE) or state_dir))

    @property
    def exits(self) -> Path:
        """Where the guard writes how processes ended that it has inherited."""
        return self.folder / contract.EXITS

    def write_on_stop(self, grace: float | None) -> None:
        """Write down what becomes of instances at the end, for a guard that has to end them itself.

        Args:
            grace: seconds that they get to end; None to leave them alone.
        """
        self._write(contract.ON_STOP, contract.format_on_stop(grace))

    def write_log_settings(self, text: str) -> None:
        """Write down how much is logged, for the next daemon of this guard."""
        self._write(contract.LOG_SETTINGS, text)

    def read_log_settings(self) -> str:
        """Return what the daemon before has written down; empty if there is none."""
        if self.pid is None:
            return ""
        try:
            return (self.folder / contract.LOG_SETTINGS).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            log.warning("cannot read how much the daemon before has logged", reason=str(error))
            return ""

    def _write(self, name: str, text: str) -> None:
        """Replace a file; if that fails it is logged: a full disk must not keep the daemon from its work."""
        if self.pid is None:
            return
        target, beside = self.folder / name, self.folder / f"{name}.new"
        try:
            beside.write_text(text, encoding="ascii")
            beside.replace(target)
        except OSError as error:
            log.warning(
                "the guard and its next daemon will not know a setting of this one",
                path=str(target),
                reason=error.strerror,
            )
