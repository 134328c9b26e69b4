"""OS processes: spawned, signalled and awaited through pidfds, together with their descendants."""

from instance_manager.adapters.process.adoption import OsProcessAdopter
from instance_manager.adapters.process.guard_link import GuardLink
from instance_manager.adapters.process.handles import PidfdUnsupportedError, check_pidfds
from instance_manager.adapters.process.listeners import ListenerCheck
from instance_manager.adapters.process.own_programs import end_own_programs
from instance_manager.adapters.process.reaper import Reaper
from instance_manager.adapters.process.session import SessionContainment
from instance_manager.adapters.process.session.search import find_marked
from instance_manager.adapters.process.spawner import ProcessSpawner

__all__ = [
    "GuardLink",
    "ListenerCheck",
    "OsProcessAdopter",
    "PidfdUnsupportedError",
    "ProcessSpawner",
    "Reaper",
    "SessionContainment",
    "check_pidfds",
    "end_own_programs",
    "find_marked",
]
