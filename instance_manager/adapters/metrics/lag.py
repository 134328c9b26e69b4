"""How late the event loop is: whatever keeps it from running keeps the daemon from answering."""

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

from instance_manager.adapters.metrics.distribution import Distribution

log = structlog.get_logger(__name__)

_INTERVAL = 0.5
"""Seconds between looks: two wake-ups a second cost nothing that can be measured."""
_STALL = 1.0
"""Seconds of lateness that are called a stall, and are warned of."""
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30)


class LoopLag:
    """Sets a timer again and again and looks how late it comes."""

    def __init__(self, interval: float = _INTERVAL) -> None:
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._cpu = 0.0
        self._late = Distribution(_SECONDS)
        self.stalls = 0
        """How often the loop was a second late or more."""
        self.last = 0.0
        """Seconds the loop was late when it was looked at last."""
        self.longest = 0.0
        """Seconds the loop was late at most since the start."""

    def open(self) -> None:
        """Look from now on."""
        self._due = time.monotonic() + self._interval
        self._cpu = time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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
                # About as much: the daemon itself was busy. Little: it was stopped, or got no CPU.
                cpu_seconds=round(time.thread_time() - self._cpu, 3),
            )
        self.open()

    def collect(self) -> Iterator[Metric]:
        """Tell everything counted so far."""
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
