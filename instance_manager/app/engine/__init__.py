"""The use cases of v1 engines, over the Protocol `EngineControl`."""

from instance_manager.app.engine.completion import Completion
from instance_manager.app.engine.control import EngineControl

__all__ = ["Completion", "EngineControl"]
