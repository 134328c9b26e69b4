"""The status of the agent, and the conditions that keep it from finding orphans."""

from dataclasses import dataclass

import structlog

from instance_manager.orphans.cache import NOT_LISTED
from instance_manager.orphans.reconciler import Reconciler

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ManagerStatus:
    """The status of one instance manager."""

    name: str
    last_error: str
    """Why its instances are unknown; empty if they are known."""
    instances: int
    without_identity: int
    """Instances without a UUID: never judged, never deleted."""
    identity_warning: str
    """Why it is likely not the one of its name, empty if nothing says so."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The status of the agent."""

    managers: tuple[ManagerStatus, ...]
    owners_error: str
    """Why the owners are unknown; empty if they are known."""
    records_error: str
    """Why the records could not be read; empty if they could."""
    suspects: int
    """Number of instances that are suspected but not yet declared orphans."""
    orphans: int
    """Number of open records."""
    tripped: str
    """Why no orphan is declared, and none deleted without a request; empty if nothing speaks against it."""


def status_of(reconciler: Reconciler) -> AgentStatus:
    """Return the status of a reconciler."""
    candidates = reconciler.candidates.open.values()
    return AgentStatus(
        managers=tuple(
            ManagerStatus(
                name,
                cache.error,
                len(cache.items or ()),
                cache.without_identity,
                reconciler.caches.identity_warning(name),
            )
            for name, cache in reconciler.caches.managers.items()
        ),
        owners_error=reconciler.caches.owners.error,
        records_error=reconciler.records_error,
        suspects=sum(each.record is None for each in candidates),
        orphans=sum(each.record is not None for each in candidates),
        tripped=reconciler.candidates.breaker.tripped,
    )


class ConditionLog:
    """Logs each condition when it starts, when it changes and when it is over."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def current(self) -> dict[str, str]:
        """What is wrong now, and why."""
        return {what: why for what, why in self._reasons.items() if why not in {"", NOT_LISTED.reason}}

    def update(self, status: AgentStatus) -> None:
        """Log what has changed since the last call."""
        self._set("owner source", status.owners_error)
        self._set("records", status.records_error)
        self._set("orphan limit", status.tripped)
        for manager in status.managers:
            self._set(f"instance manager {manager.name}", manager.last_error)
            if manager.last_error:
                continue  # nothing is known, which is no end of what was known before
            if not status.owners_error:
                self._set(f"name of {manager.name}", manager.identity_warning)
            count = manager.without_identity
            reason = f"{count} instances have no identity and are not judged" if count else ""
            self._set(f"identities on {manager.name}", reason)

    def _set(self, what: str, reason: str) -> None:
        before = self._reasons.get(what, "")
        self._reasons[what] = reason
        if reason in {before, NOT_LISTED.reason}:
            return
        if reason:
            log.warning("trouble", what=what, reason=reason)
        elif before != NOT_LISTED.reason:
            log.info("trouble is over", what=what)
