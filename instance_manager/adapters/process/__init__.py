"""Operating-system processes: spawned, signalled and awaited through pidfds, with what they leave behind."""

from instance_manager.adapters.process.spawner import ProcessSpawner
from instance_manager.adapters.process.survivors import ProcessSurvivors

__all__ = ["ProcessSpawner", "ProcessSurvivors"]
