"""Containment by cgroups, version 2: the kernel tells what belongs to an instance."""

from instance_manager.adapters.cgroup.containment import CgroupContainment
from instance_manager.adapters.cgroup.hierarchy import UnusableError, usable_root

__all__ = ["CgroupContainment", "UnusableError", "usable_root"]
