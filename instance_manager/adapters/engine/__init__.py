"""Engines and their replicas over gRPC: those of v1, and those of v2 in SPDK services."""

from instance_manager.adapters.engine.agents import GrpcSyncAgents
from instance_manager.adapters.engine.calls import Calls, Timeouts
from instance_manager.adapters.engine.channels import Channels
from instance_manager.adapters.engine.controllers import GrpcControllers
from instance_manager.adapters.engine.replicas import GrpcReplicas
from instance_manager.adapters.engine.spdk import GrpcSpdkEngines
from instance_manager.app.engine import Engines, SpdkEngines

__all__ = ["Channels", "Timeouts", "engines_over", "spdk_engines_over"]


def engines_over(channels: Channels, timeouts: Timeouts | None = None) -> Engines:
    """Return the engines and replicas, over connections that the caller closes."""
    calls, timeouts = Calls(channels), timeouts or Timeouts()
    return Engines(
        controllers=GrpcControllers(calls, timeouts),
        replicas=GrpcReplicas(calls, timeouts),
        agents=GrpcSyncAgents(calls, timeouts),
    )


def spdk_engines_over(
    channels: Channels, local: str, port: int, timeouts: Timeouts | None = None
) -> SpdkEngines:
    """Return the v2 engines and replicas, over connections that the caller closes; see `GrpcSpdkEngines`."""
    return GrpcSpdkEngines(Calls(channels), timeouts or Timeouts(), local, port)
