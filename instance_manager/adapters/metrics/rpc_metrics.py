"""Metrics of the gRPC calls: how many, their status codes, and how long they took."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from instance_manager.adapters.metrics.histogram import Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5, 30)
_OK = "OK"
_WATCH = "Watch"
"""Suffix of the names of the methods that stream changes."""
_METHOD = ("service", "method")


class MethodMetrics:
    """The calls of one method; a `MethodObserver` of `api.interceptors`."""

    def __init__(self, service: str, method: str, *, streaming: bool) -> None:
        self.service = service
        self.name = method
        self.streaming = streaming
        self.started = 0
        self.by_code = Counter({_OK: 0})
        """Number of calls that have ended, by the name of the status code."""
        self.seconds = Histogram(_SECONDS)
        """Durations of calls; not of streams, which last as long as their caller likes."""

    @property
    def active(self) -> int:
        """The number of calls in progress."""
        return self.started - self.by_code.total()

    def on_started(self) -> None:
        """Count the start of a call."""
        self.started += 1

    def on_ended(self, code: str, seconds: float) -> None:
        """Count the end of a call."""
        self.by_code[code] += 1
        if not self.streaming:
            self.seconds.observe(seconds)


class RpcMetrics:
    """The calls of all methods of the daemon's own services: a `CallObserver` of `api.interceptors`."""

    def __init__(self) -> None:
        self._methods: list[MethodMetrics] = []

    def method(self, service: str, method: str, *, streaming: bool) -> MethodMetrics:
        """Return the counters of a method."""
        metrics = MethodMetrics(service, method, streaming=streaming)
        self._methods.append(metrics)
        return metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        started = CounterMetricFamily(
            "instance_manager_grpc_started", "Calls that were started.", labels=_METHOD
        )
        handled = CounterMetricFamily(
            "instance_manager_grpc_handled",
            "Calls that have ended, by status code; CANCELLED if the caller gave up.",
            labels=(*_METHOD, "code"),
        )
        active = GaugeMetricFamily(
            "instance_manager_grpc_active_calls",
            "Number of calls and streams in progress.",
            labels=_METHOD,
        )
        seconds = HistogramMetricFamily(
            "instance_manager_grpc_handling_seconds",
            "Duration of calls, streams excepted.",
            labels=_METHOD,
        )
        watchers = GaugeMetricFamily(
            "instance_manager_watchers",
            "Number of watch streams in progress.",
            labels=("service",),
        )
        watching: Counter[str] = Counter()
        for each in self._methods:
            labels = (each.service, each.name)
            started.add_metric(labels, each.started)
            active.add_metric(labels, each.active)
            for code, count in each.by_code.items():
                handled.add_metric((*labels, code), count)
            if each.streaming and each.name.endswith(_WATCH):
                watching[each.service] += each.active
            # The text of a histogram is long, and most methods are never called.
            if each.seconds.count:
                each.seconds.add_to(seconds, labels)
        for service, count in watching.items():
            watchers.add_metric((service,), count)
        yield from (started, handled, active, seconds, watchers)
