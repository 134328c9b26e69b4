"""Owners from files: what `kubectl get engines,replicas -o json` prints, read again whenever it changes."""

from instance_manager.adapters.owners.owners import FileOwners

__all__ = ["FileOwners"]
