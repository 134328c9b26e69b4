"""Containment by cgroups, against the real hierarchy of this machine."""
