"""The audit trail: who changed what, and what came of it, in bounded memory."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

DEFAULT_KEPT = 4096
"""Calls that are remembered; with names as long as they can be about 4 MiB."""
_LONGEST_TEXT = 256
"""Characters of a field: a refused request may hold anything."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One call that was to change something."""

    number: int
    """Increasing by one from call to call since the start of the daemon."""
    time: float
    """Seconds since the epoch, at its end."""
    method: str
    name: str
    """Of the process or instance; empty if the call was not about one."""
    uuid: str
    """That it was told to hit or has made, as far as known."""
    caller: str
    code: str
    """Name of the gRPC status."""
    detail: str
    """Why it was refused."""


class AuditTrail:
    """Logs each entry and remembers the latest."""

    def __init__(self, now: Callable[[], float], *, kept: int = DEFAULT_KEPT) -> None:
        self._now = now
        self._entries: deque[AuditEntry] = deque(maxlen=kept)
        self.number = 0
        """Of the latest entry."""

    def add(self, *, method: str, name: str, uuid: str, caller: str, code: str, detail: str = "") -> None:
        """Write down a call that has ended."""
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
        )
        self._entries.append(entry)
        log.info(
            "audit",
            method=entry.method,
            name=entry.name,
            uuid=entry.uuid,
            caller=entry.caller,
            code=entry.code,
            **{"detail": entry.detail} if entry.detail else {},
        )

    def entries(self, *, since: float = 0.0, limit: int = 0) -> list[AuditEntry]:
        """Return what is remembered, oldest first.

        Args:
            since: only calls that ended at or after this time.
            limit: only the last so many, 0 for all.
        """
        found = [entry for entry in self._entries if entry.time >= since]
        return found[-limit:] if limit else found
