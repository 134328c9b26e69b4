"""The use cases of engines, over the Protocols in `control` for v1 and in `spdk` for v2."""

from instance_manager.app.engine.completion import Completion, EngineChange
from instance_manager.app.engine.control import Controllers, Engines, Replicas, SyncAgents
from instance_manager.app.engine.node import NodeMounts
from instance_manager.app.engine.spdk import SpdkEngines

__all__ = [
    "Completion",
    "Controllers",
    "EngineChange",
    "Engines",
    "NodeMounts",
    "Replicas",
    "SpdkEngines",
    "SyncAgents",
]
