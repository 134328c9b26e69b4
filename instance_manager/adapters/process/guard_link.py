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

        If it cannot be written, that is logged: a full disk must not keep the daemon from its instances.
        """
        if self.pid is None:
            return
        target, beside = self.folder / contract.ON_STOP, self.folder / f"{contract.ON_STOP}.new"
        try:
            beside.write_text(contract.format_on_stop(grace), encoding="ascii")
            beside.replace(target)
        except OSError as error:
            log.warning(
                "a guard that has to end the instances itself will not know the settings of this daemon",
                path=str(target),
                reason=error.strerror,
            )
