"""ProxyEngineService: what managers ask of engines, which the daemon asks on their behalf."""

from instance_manager.api.proxy.service import ProxyService

__all__ = ["ProxyService"]
