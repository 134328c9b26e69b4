"""The audit trail: who called which changing method, with which result, in bounded memory."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

DEFAULT_KEPT = 4096
"""Number of calls kept; at most about 5 MiB."""
_LONGEST_TEXT = 256
"""Longest field, in characters: a refused request may contain anything."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One call of a method that changes something."""

    number: int
    """Number of the call since the start of the daemon."""
    time: float
    """When it ended, in seconds since the epoch."""
    method: str
    """Full name of the method, `SERVICE/METHOD`."""
    name: str
    """Name of the process or instance; empty if the call was not about one."""
    uuid: str
    """UUID in the request, or of the process that was created; empty if unknown."""
    caller: str
    """Who called, in words; see `api.caller`."""
    code: str
    """Name of the gRPC status."""
    detail: str
    """Why it was refused, or why a restore was not begun; empty if it was done."""
    subject: str = ""
    """What of an engine it was about, as FIELD=VALUE: a replica, snapshots, a size; else empty."""


class AuditTrail:
    """Logs every entry and keeps the latest."""

    def __init__(self, now: Callable[[], float], *, kept: int = DEFAULT_KEPT) -> None:
        self._now = now
        self._entries: deque[AuditEntry] = deque(maxlen=kept)
        self.number = 0
        """Number of the latest entry."""

    def add(
        self,
        *,
        method: str,
        name: str,
        uuid: str,
        caller: str,
        code: str,
        detail: str = "",
        subject: str = "",
    ) -> None:
        """Record a call that has ended."""
        self.number += 1
        entry = AuditEntry(
            self.number,
            self._now(),
            method,
            name[:_LONGEST_TEXT],
            uuid[:_LONGEST_TEXT],
            caller[:_LONGEST_TEXT],
            code,
            detail[:_LONGEST_TEXT],
            subject[:_LONGEST_TEXT],
        )
        self._entries.append(entry)
        log.info(
            "audit",
            method=entry.method,
            name=entry.name,
            uuid=entry.uuid,
            caller=entry.caller,
            code=entry.code,
            **{"subject": entry.subject} if entry.subject else {},
            **{"detail": entry.detail} if entry.detail else {},
        )

    def entries(self, *, since: float = 0.0, limit: int = 0) -> list[AuditEntry]:
        """Return the entries that are kept, oldest first.

        Args:
            since: only calls that ended at or after this time, in seconds since the epoch.
            limit: only the last `limit` of them; 0 for all.
        """
        found = [entry for entry in self._entries if entry.time >= since]
        return found[-limit:] if limit else found
