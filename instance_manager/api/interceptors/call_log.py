"""The calls in the log, at debug. What goes on as before is only counted: managers poll without pause."""

from collections import OrderedDict
from dataclasses import dataclass

import grpc
import structlog

from instance_manager.api.service import Method
from instance_manager.platform.background import Background

log = structlog.get_logger(__name__)

WORK = "call-summary"
"""Name of the background work that sums up."""
INTERVAL = 60.0
"""Seconds between summaries."""
MOST_LINES = 60
"""Largest number of lines on the reads of one method between two summaries."""
_MOST_FAILING = 1024
"""Largest number of reads whose failure is remembered."""


@dataclass(slots=True)
class _Sum:
    """The calls of one method since the last summary."""

    count: int = 0
    failed: int = 0
    slowest: float = 0.0
    """Seconds."""
    lines: int = 0
    """Number of lines on its reads, also of those that were too many to be logged."""


@dataclass(slots=True)
class _Failure:
    """A read that fails."""

    reason: str
    count: int = 1


class CallLog:
    """Logs what is new, and sums up the calls of each method once in a while.

    New is each change; and of what may be repeated, reads and settings, a first failure, another failure, and
    that it succeeds again. Two calls are the same if method and request are.
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}
        """By the full name of the method."""
        self._failing: OrderedDict[int, _Failure] = OrderedDict()
        """By a hash of method and request, the latest last."""

    def open(self, background: Background) -> None:
        """Sum up from time to time."""
        background.every(WORK, INTERVAL, self.sum_up)

    def add(self, method: Method, request: bytes, code: grpc.StatusCode, reason: str, seconds: float) -> None:
        """Note a call that has ended.

        Args:
            method: which one.
            request: by what the same one is known again.
            code: its status; CANCELLED if the caller has gone.
            reason: why it has failed; empty if it has not.
            seconds: how long it took, with the time in the queue.
        """
        total = self._sums.setdefault(method.full_name, _Sum())
        failed = code not in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
        total.count += 1
        total.failed += failed
        total.slowest = max(total.slowest, seconds)
        if method.changes and not method.sets:
            self._line("call", method, code, reason, seconds)
        elif code is not grpc.StatusCode.CANCELLED:
            self._add_read(method, hash((method.full_name, request)), code, reason, seconds)

    def _add_read(self, method: Method, key: int, code: grpc.StatusCode, reason: str, seconds: float) -> None:
        before = self._failing.pop(key, None)
        if code is grpc.StatusCode.OK:
            if before is not None:
                self._line_on_read("call succeeds again", method, code, "", seconds, failures=before.count)
            return
        failure = f"{code.name} {reason}"
        if before is not None and before.reason == failure:
            before.count += 1
            self._failing[key] = before
            return
        self._failing[key] = _Failure(failure)
        if len(self._failing) > _MOST_FAILING:
            self._failing.popitem(last=False)
        self._line_on_read("call", method, code, reason, seconds)

    def _line_on_read(
        self, event: str, method: Method, code: grpc.StatusCode, reason: str, seconds: float, **more: object
    ) -> None:
        total = self._sums[method.full_name]
        total.lines += 1
        if total.lines <= MOST_LINES:
            self._line(event, method, code, reason, seconds, **more)

    @staticmethod
    def _line(
        event: str, method: Method, code: grpc.StatusCode, reason: str, seconds: float, **more: object
    ) -> None:
        if reason:
            more["reason"] = reason
        milliseconds = round(seconds * 1000, 2)
        log.debug(event, method=f"/{method.full_name}", code=code.name, milliseconds=milliseconds, **more)

    def sum_up(self) -> None:
        """Log the calls of each method since the last time."""
        sums, self._sums = self._sums, {}
        for name, each in sums.items():
            unlogged = max(0, each.lines - MOST_LINES)
            log.debug(
                "calls",
                method=f"/{name}",
                count=each.count,
                failed=each.failed,
                slowest_milliseconds=round(each.slowest * 1000, 2),
                **({"lines_left_out": unlogged} if unlogged else {}),
            )
