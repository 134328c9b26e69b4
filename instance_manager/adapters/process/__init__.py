"""OS processes: spawned, signalled and awaited through pidfds, together with their descendants."""

from instance_manager.adapters.process.spawner import ProcessSpawner
from instance_manager.adapters.process.survivors import ProcessSurvivors

__all__ = ["ProcessSpawner", "ProcessSurvivors"]
