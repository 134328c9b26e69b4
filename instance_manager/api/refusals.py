"""Calls that are turned away before a handler sees them: all are counted, not every one is logged."""

import time
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger(__name__)

_QUIET_SECONDS = 10.0
"""Refused calls within so long after one that was logged are only counted."""


class Refusals:
    """Counts the calls refused for one reason."""

    def __init__(self, event: str) -> None:
        """Count calls, and log those that are logged under this event."""
        self._event = event
        self._quiet_until = 0.0
        self._count = 0

    def add(self, details: Callable[[], Mapping[str, object]]) -> None:
        """Count a call, and log it with its details unless another one has been logged just now."""
        self._count += 1
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning(self._event, **details(), refused=self._count)
