"""Owners from files with the output of `kubectl get engines,replicas -o json`, read again on every change."""

from instance_manager.orphans.owners.files import FileOwners

__all__ = ["FileOwners"]
