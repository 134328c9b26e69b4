"""The use cases of v1 engines, over the Protocols in `control`."""

from instance_manager.app.engine.completion import Completion, EngineChange
from instance_manager.app.engine.control import Controllers, Engines, Replicas, SyncAgents
from instance_manager.app.engine.node import NodeMounts

__all__ = [
    "Completion",
    "Controllers",
    "EngineChange",
    "Engines",
    "NodeMounts",
    "Replicas",
    "SyncAgents",
]
