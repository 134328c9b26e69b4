"""Prometheus metrics, liveness and readiness of the daemon over HTTP.

Nothing is registered globally, and the counters of other parts are read only during a scrape, so that
counting costs them next to nothing.
"""

from instance_manager.adapters.metrics.collector import MetricsSources
from instance_manager.adapters.metrics.endpoints import Endpoints, Phase
from instance_manager.adapters.metrics.lag import LoopLag
from instance_manager.adapters.metrics.lifecycles import Lifecycles
from instance_manager.adapters.metrics.rpc_metrics import RpcMetrics
from instance_manager.adapters.metrics.server import MetricsServer, metrics_address

__all__ = [
    "Endpoints",
    "Lifecycles",
    "LoopLag",
    "MetricsServer",
    "MetricsSources",
    "Phase",
    "RpcMetrics",
    "metrics_address",
]
