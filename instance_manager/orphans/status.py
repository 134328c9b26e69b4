"""The status of the agent, and log lines about its troubles when they change."""

from dataclasses import dataclass

import structlog

from instance_manager.orphans.cache import NOT_LISTED
from instance_manager.orphans.reconciler import Reconciler

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ManagerStatus:
    """The status of one instance manager."""

    name: str
    trouble: str
    """Why its instances are unknown; empty if they are known."""
    instances: int
    without_identity: int
    """Instances without a UUID: never judged, never deleted."""
    doubt: str
    """Why it is likely not the one of its name, empty if nothing says so."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The status of the agent."""

    managers: tuple[ManagerStatus, ...]
    owners_trouble: str
    """Why the owners are unknown; empty if they are known."""
    records_trouble: str
    """Why the records could not be read; empty if they could."""
    suspects: int
    """Number of instances that are suspected but not yet declared orphans."""
    orphans: int
    """Number of open records."""
    halted: str
    """Why no orphan is declared, and none deleted without a request; empty if not halted."""


def status_of(reconciler: Reconciler) -> AgentStatus:
    """Return the status of a reconciler."""
    cases = reconciler.cases.open.values()
    owners = reconciler.views.owners
    return AgentStatus(
        managers=tuple(
            ManagerStatus(
                name,
                "" if view.instances is not None else view.trouble.reason,
                len(view.instances or ()),
                view.without_identity,
                reconciler.views.doubt(name),
            )
            for name, view in reconciler.views.managers.items()
        ),
        owners_trouble="" if owners.owners is not None else owners.trouble.reason,
        records_trouble=reconciler.records_trouble,
        suspects=sum(case.record is None for case in cases),
        orphans=sum(case.record is not None for case in cases),
        halted=reconciler.cases.limiter.halted,
    )


class Complaints:
    """Logs each trouble when it starts, when it changes and when it is over."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    @property
    def current(self) -> dict[str, str]:
        """What is wrong now, and why."""
        return {what: reason for what, reason in self._said.items() if reason not in {"", NOT_LISTED.reason}}

    def hear(self, status: AgentStatus) -> None:
        """Log what has changed since the last call."""
        self._say("owner source", status.owners_trouble)
        self._say("records", status.records_trouble)
        self._say("orphan limit", status.halted)
        for manager in status.managers:
            self._say(f"instance manager {manager.name}", manager.trouble)
            if manager.trouble:
                continue  # nothing is known, which is no end of what was known before
            if not status.owners_trouble:
                self._say(f"name of {manager.name}", manager.doubt)
            count = manager.without_identity
            reason = f"{count} instances have no identity and are not judged" if count else ""
            self._say(f"identities on {manager.name}", reason)

    def _say(self, what: str, reason: str) -> None:
        before = self._said.get(what, "")
        self._said[what] = reason
        if reason in {before, NOT_LISTED.reason}:
            return
        if reason:
            log.warning("trouble", what=what, reason=reason)
        elif before != NOT_LISTED.reason:
            log.info("trouble is over", what=what)
