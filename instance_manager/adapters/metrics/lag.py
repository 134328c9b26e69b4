"""The delay of the event loop: whatever delays it also delays every answer of the daemon."""

import asyncio
import time
from collections.abc import Iterator

import structlog
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from instance_manager.adapters.metrics.histogram import Histogram
from instance_manager.platform.background import Background

log = structlog.get_logger(__name__)

WORK = "event-loop-lag"
"""Name of this background work."""
_INTERVAL = 0.5
"""Seconds between measurements: the cost of two wake-ups per second cannot be measured."""
_STALL = 1.0
"""Seconds of delay from which on it is a stall, and is logged."""
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30)


class LoopLag:
    """Sets a timer again and again, and measures how late it fires."""

    def __init__(self, interval: float = _INTERVAL) -> None:
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._due = 0.0
        self._cpu = 0.0
        self._late = Histogram(_SECONDS)
        self.stalls = 0
        """Number of delays of a second or more."""
        self.last = 0.0
        """Latest delay in seconds."""
        self.longest = 0.0
        """Longest delay in seconds since the start."""

    def open(self, background: Background) -> None:
        """Start measuring."""
        self._begin()
        self._task = background.every(WORK, self._interval, self._look)

    def close(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _begin(self) -> None:
        self._due = time.monotonic() + self._interval
        self._cpu = time.thread_time()

    def _look(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        self.last = late
        self.longest = max(self.longest, late)
        self._late.observe(late)
        if late >= _STALL:
            self.stalls += 1
            log.warning(
                "the event loop stood still: nothing was answered or supervised meanwhile",
                seconds=round(late, 3),
                # If about the same, the daemon itself was busy; if little, it was stopped or got no CPU.
                cpu_seconds=round(time.thread_time() - self._cpu, 3),
            )
        self._begin()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        late = HistogramMetricFamily(
            "instance_manager_event_loop_lag_seconds",
            "Delay of a timer that is set twice a second; nothing else ran during that delay either.",
        )
        self._late.add_to(late)
        yield late
        yield GaugeMetricFamily(
            "instance_manager_event_loop_last_lag_seconds",
            "Latest measured delay of the event loop.",
            value=self.last,
        )
        yield GaugeMetricFamily(
            "instance_manager_event_loop_longest_lag_seconds",
            "Longest delay of the event loop since the daemon was started.",
            value=self.longest,
        )
        yield CounterMetricFamily(
            "instance_manager_event_loop_stalls",
            "Delays of the event loop of a second or more.",
            value=self.stalls,
        )
