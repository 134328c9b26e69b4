"""The v1 engines and their replicas over gRPC."""

from instance_manager.adapters.engine.calls import Calls, Timeouts
from instance_manager.adapters.engine.channels import Channels
from instance_manager.adapters.engine.control import GrpcEngineControl

__all__ = ["Calls", "Channels", "GrpcEngineControl", "Timeouts"]
