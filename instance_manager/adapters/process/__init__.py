"""Operating-system processes: spawned, signalled and awaited through pidfds, with what they leave behind."""

from instance_manager.adapters.process.spawner import ProcessSpawner

__all__ = ["ProcessSpawner"]
