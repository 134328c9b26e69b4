"""The HTTP endpoints: metrics, liveness and readiness."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from instance_manager.adapters.metrics.collector import DaemonCollector, MetricsSources
from instance_manager.adapters.metrics.instances import InstanceCollector
from instance_manager.adapters.metrics.lag import LoopLag
from instance_manager.adapters.metrics.lifecycles import Lifecycles
from instance_manager.adapters.metrics.rpc_metrics import RpcMetrics

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class Phase(StrEnum):
    """The phase of the daemon's life."""

    STARTING = auto()
    RECOVERING = auto()
    """It is taking over the processes of an earlier daemon."""
    SERVING = auto()
    DRAINING = auto()
    """It is shutting down."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str


class Endpoints:
    """The endpoints by path."""

    def __init__(
        self, sources: MetricsSources, *, rpc: RpcMetrics, lifecycles: Lifecycles, lag: LoopLag
    ) -> None:
        self.phase = Phase.STARTING
        self._sources = sources
        self._lag = lag
        self._instances = InstanceCollector(sources.usages) if sources.usages else None
        self._registry = CollectorRegistry()
        for collector in (DaemonCollector(sources), lifecycles, rpc, lag, self):
            self._registry.register(collector)
        if self._instances is not None:
            self._registry.register(self._instances)
        ProcessCollector(registry=self._registry)
        self._endpoints = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}

    async def get(self, path: str) -> Response:
        """Return the response of the endpoint at a path."""
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            paths = ", ".join(self._endpoints)
            return Response(HTTPStatus.NOT_FOUND, f"there are {paths}\n".encode(), _TEXT)
        return await endpoint()

    def collect(self) -> Iterable[Metric]:
        """Yield the metric of the phase."""
        yield GaugeMetricFamily(
            "instance_manager_ready",
            "Whether the daemon serves (1), or is starting or ending (0).",
            value=self.phase is Phase.SERVING,
        )

    async def _metrics(self) -> Response:
        if self._instances is not None:
            await self._instances.refresh()
        return Response(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4)

    async def _healthz(self) -> Response:
        # Any answer will do: the event loop that answers is the one that supervises.
        return _json(
            HTTPStatus.OK,
            {
                "status": "ok",
                "event_loop_last_lag_seconds": round(self._lag.last, 3),
                "event_loop_longest_lag_seconds": round(self._lag.longest, 3),
                "event_loop_stalls": self._lag.stalls,
            },
        )

    async def _readyz(self) -> Response:
        ready = self.phase is Phase.SERVING
        return _json(
            HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
            {
                "ready": ready,
                "phase": self.phase,
                # For information only: the daemon serves without a journal too.
                "journal": self._sources.journal.last_error or "ok",
            },
        )


def _json(status: HTTPStatus, content: Mapping[str, object]) -> Response:
    return Response(status, f"{json.dumps(content)}\n".encode(), _JSON)
