"""What the agent knows and does, for metrics, and what of it goes into the log when it changes."""

from dataclasses import dataclass

import structlog

from instance_manager.app.orphans.reconciler import Reconciler
from instance_manager.app.orphans.view import NOT_LISTED

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ManagerStatus:
    """What is known about one instance manager."""

    name: str
    trouble: str
    """Why nothing is known, empty if it is."""
    instances: int
    without_identity: int
    """Instances without a UUID: never judged, never deleted."""
    doubt: str
    """Why it is likely not the one of its name, empty if nothing says so."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What the agent knows and does, for logs and metrics."""

    managers: tuple[ManagerStatus, ...]
    owners_trouble: str
    """Why nothing is known about owners, empty if it is."""
    records_trouble: str
    """Why the records could not be read, empty if they could."""
    suspects: int
    orphans: int
    halted: str
    """Why no orphan is declared, and none deleted without a person's order; empty while all is well."""


def status_of(reconciler: Reconciler) -> AgentStatus:
    """Return what a reconciler knows now."""
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
    """Logs what is wrong when it begins, when it changes and when it is over."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    @property
    def current(self) -> dict[str, str]:
        """What is wrong now, and why."""
        return {what: reason for what, reason in self._said.items() if reason not in {"", NOT_LISTED.reason}}

    def hear(self, status: AgentStatus) -> None:
        """Log what differs from the last time."""
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
