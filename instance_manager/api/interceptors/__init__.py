"""The chain in front of every method.

Metrics, audit, peer name, receiving, status codes, limit of streams, fairness, budget of answers.

Each is a module. `InterceptorChain` composes them once for each method, around the parsed request,
and is the only one that gRPC sees. Services know nothing of it.
"""

from instance_manager.api.interceptors.call_log import CallLog
from instance_manager.api.interceptors.chain import InterceptorChain
from instance_manager.api.interceptors.stream_limit import DEFAULT_MAX_STREAMS

__all__ = ["DEFAULT_MAX_STREAMS", "CallLog", "InterceptorChain"]
