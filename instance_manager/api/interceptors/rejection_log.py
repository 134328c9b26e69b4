"""Calls that are rejected before they reach a method: all are counted, but not every one is logged."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from instance_manager.core.errors import ResourceExhaustedError

log = structlog.get_logger(__name__)

_QUIET_SECONDS = 10.0
"""Seconds after a logged rejection in which further ones are only counted."""


class RejectionLog:
    """Counts the calls rejected for one reason."""

    def __init__(self, event: str) -> None:
        """Start counting; `event` is the message of the log lines."""
        self._event = event
        self._quiet_until = 0.0
        self._count = 0

    def add(self, details: Callable[[], Mapping[str, object]]) -> None:
        """Count a call, and log it with its details unless another one was logged just now."""
        self._count += 1
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning(self._event, **details(), refused=self._count)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Count a call that the block rejects, with its reason."""
        try:
            yield
        except ResourceExhaustedError as error:
            reason = str(error)
            self.add(lambda: {"reason": reason})
            raise
