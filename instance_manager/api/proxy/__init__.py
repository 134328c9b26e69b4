"""ProxyEngineService: what managers ask of engines, which the daemon asks on their behalf."""

from instance_manager.api.proxy.service import ProxyService
from instance_manager.api.proxy.v2 import ProxyV2

__all__ = ["ProxyService", "ProxyV2"]
