"""OS processes: spawned, signalled and awaited through pidfds, together with their descendants."""

from instance_manager.adapters.process.adoption import OsProcessAdopter
from instance_manager.adapters.process.guard_link import GuardLink
from instance_manager.adapters.process.handles import PidfdUnsupportedError, check_pidfds
from instance_manager.adapters.process.listeners import ListenerCheck
from instance_manager.adapters.process.own_programs import end_own_programs
from instance_manager.adapters.process.spawner import ProcessSpawner

__all__ = [
    "GuardLink",
    "ListenerCheck",
    "OsProcessAdopter",
    "PidfdUnsupportedError",
    "ProcessSpawner",
    "check_pidfds",
    "end_own_programs",
]
