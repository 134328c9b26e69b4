"""Containment by cgroups, version 2: the kernel tells what belongs to an instance."""

from instance_manager.adapters.cgroup.containment import CgroupContainment
from instance_manager.adapters.cgroup.hierarchy import Choice, UnusableError, choose, usable_root
from instance_manager.adapters.cgroup.owner import ForeignCell, cells_of_others

__all__ = [
    "CgroupContainment",
    "Choice",
    "ForeignCell",
    "UnusableError",
    "cells_of_others",
    "choose",
    "usable_root",
]
