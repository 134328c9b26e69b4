"""Which containment the daemon has."""

import os

import structlog

from instance_manager.adapters.cgroup import CgroupContainment, UnusableError, choose
from instance_manager.adapters.process import Reaper, SessionContainment
from instance_manager.app.containment import Kind
from instance_manager.daemon.settings import ContainmentChoice, DaemonSettings

log = structlog.get_logger(__name__)

_REQUESTED = {
    ContainmentChoice.AUTO: None,
    ContainmentChoice.CGROUP: Kind.CGROUP,
    ContainmentChoice.SESSION: Kind.SESSION,
}


def open_containment(
    settings: DaemonSettings, reaper: Reaper, owner: str, guard: int | None
) -> CgroupContainment | SessionContainment:
    """Return the way to tell what belongs to an instance, and log which it is.

    Args:
        settings: say which one is wanted, and the limits of instances.
        reaper: of the children of this process.
        owner: the state directory's value of `contract.OWNER_VARIABLE`.
        guard: PID of the guard, if there is one.

    Raises:
        UnusableError: if only cgroups are wanted, and cannot be used.
    """
    by_session = SessionContainment(reaper, owner, guard, settings.limits)
    containment: CgroupContainment | SessionContainment = by_session
    requested = _REQUESTED[settings.containment]
    try:
        choice = choose(requested, settings.cgroup_root)
        if choice.root is not None:
            ours = {os.getpid(), guard or os.getpid()}
            containment = CgroupContainment(choice.root, owner, by_session, limits=settings.limits, ours=ours)
        by_session.why = choice.reason
    except UnusableError as error:
        if requested is Kind.CGROUP:
            raise
        by_session.why = str(error)
    status = containment.status()
    log.info("containment", kind=status.kind, why=status.why, folder=status.folder)
    if status.kind is Kind.SESSION and settings.limits:
        log.warning("instances go without limits", refused=status.limits_refused)
    return containment
