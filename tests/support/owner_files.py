"""Owners as `kubectl get engines,replicas -o json` prints them."""

import json
from pathlib import Path
from typing import Any


def replica(
    name: str,
    *,
    kind: str = "Replica",
    manager: str = "im-1",
    node: str = "node-1",
    desired: str = "running",
    current: str = "running",
    deleting: bool = False,
) -> dict[str, Any]:
    """Return the custom resource of a replica, or of an engine, that runs."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "longhorn-system",
        "labels": {"longhornnode": node},
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-08-01T10:00:00Z"
    return {
        "apiVersion": "longhorn.io/v1beta2",
        "kind": kind,
        "metadata": metadata,
        "spec": {"nodeID": node, "desireState": desired, "dataEngine": "v1", "active": True},
        "status": {
            "ownerID": node,
            "currentState": current,
            "instanceManagerName": manager,
            "conditions": [],
            "started": current == "running",
        },
    }


def listed(*objects: dict[str, Any]) -> dict[str, Any]:
    """Return a list of custom resources."""
    return {"apiVersion": "v1", "items": list(objects), "kind": "List", "metadata": {"resourceVersion": ""}}


def write(path: Path, *objects: dict[str, Any]) -> None:
    """Put a list in the place of a file, as the documents say: at once, by renaming."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(listed(*objects)))
    beside.rename(path)


class ConfigMap:
    """A directory as Kubernetes mounts a ConfigMap: all files change at once when a link is turned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation = 0

    def turn(self, **files: str) -> None:
        """Put these files, by the stem of their names, in the place of all there were."""
        self._generation += 1
        behind = self.path / f"..generation_{self._generation}"
        behind.mkdir(parents=True)
        for stem, text in files.items():
            (behind / f"{stem}.json").write_text(text)
            link = self.path / f"{stem}.json"
            if not link.is_symlink():
                link.symlink_to(f"..data/{stem}.json")
        temporary = self.path / "..data_tmp"
        temporary.symlink_to(behind.name)
        temporary.replace(self.path / "..data")
