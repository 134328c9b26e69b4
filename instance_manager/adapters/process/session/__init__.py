"""Containment as far as it can be seen from outside: by sessions, parents and environments."""

from instance_manager.adapters.process.session.containment import SessionContainment

__all__ = ["SessionContainment"]
