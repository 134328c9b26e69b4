"""What the checks look at, and gathering it on this machine."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from instance_manager.adapters.cgroup import ForeignCell, cells_of_others
from instance_manager.adapters.journal import StateDir
from instance_manager.adapters.process import PidfdUnsupportedError, check_pidfds, find_marked
from instance_manager.adapters.tls import inspection as tls
from instance_manager.app.containment import ContainmentStatus
from instance_manager.core.ports import PortRange


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks look at; the rest they inspect themselves."""

    state_dir: Path
    logs_dir: Path
    port_range: PortRange
    listed: dict[str, tuple[int, int]] | None
    """First and last port of each listed process by UUID, (0, 0) for none; None without an answer."""
    daemon: str
    """Why the daemon did not answer; empty if it did."""
    living: Collection[tuple[int, str, str]]
    """PID, name and UUID of each living process that daemons with this state directory have started."""
    certificates: tls.CertificateInspection | None = None
    """None for plain text."""
    failing: Collection[str] = ()
    """Names of the daemon's background work that fails."""
    metrics: bool = True
    """Whether its metrics are served, if they are to be."""
    spdk: bool | None = None
    """Whether it reaches the SPDK service; None if it does not serve v2."""
    containment: ContainmentStatus | None = None
    """The daemon's; None if it has not told."""
    foreign: Sequence[ForeignCell] = ()
    """Cells beside its own that are of other state directories."""
    foreign_error: str = ""
    """Why those cannot be looked for."""
    pidfds: str = ""
    """Why processes cannot be supervised on this machine; empty if they can."""


def gather(
    state_dir: Path,
    logs_dir: Path,
    port_range: PortRange,
    *,
    listed: dict[str, tuple[int, int]] | None,
    failing: Collection[str],
    metrics: bool,
    spdk: bool | None,
    containment: ContainmentStatus | None,
    daemon: str,
    tls_dir: Path | None,
    peer_name: str,
) -> Facts:
    """Find the processes and the certificates, after the daemon was asked for its list."""
    state = StateDir(state_dir)
    living = asyncio.run(find_marked(state.owner)).adoptable
    foreign, foreign_error = _foreign_cells(containment, state.owner)
    return Facts(
        state_dir,
        logs_dir,
        port_range,
        listed,
        daemon,
        [(each.identity.pid, each.name, each.uuid) for each in living],
        None if tls_dir is None else tls.inspect(tls_dir, peer_name),
        failing,
        metrics,
        spdk,
        containment,
        foreign,
        foreign_error,
        _pidfds(),
    )


def _foreign_cells(containment: ContainmentStatus | None, owner: str) -> tuple[Sequence[ForeignCell], str]:
    """Return the cells of other state directories, and why they cannot be looked for."""
    if containment is None or not containment.folder:
        return (), ""
    try:
        return tuple(cells_of_others(Path(containment.folder).parent, owner)), ""
    except OSError as error:
        return (), error.strerror or str(error)


def _pidfds() -> str:
    try:
        check_pidfds()
    except PidfdUnsupportedError as error:
        return str(error)
    return ""
