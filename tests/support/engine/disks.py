"""The files of a replica: a chain of snapshots, and the head that is written to."""

import datetime as dt
import itertools
from dataclasses import dataclass, field, replace

from instance_manager.pb.ptypes import replica_pb2 as pb


class RefusedError(Exception):
    """It is not done; `code` is the name of a gRPC status code."""

    def __init__(self, message: str, code: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Disk:
    """A file."""

    parent: str
    removed: bool = False
    user_created: bool = False
    created: str = ""
    size: int = 0
    labels: dict[str, str] = field(default_factory=dict)


def snapshot_file(name: str) -> str:
    """Return the name of the file of a snapshot."""
    return f"volume-snap-{name}.img"


class Disks:
    """The files of one replica, by name."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.backing_file = ""
        self.files: dict[str, Disk] = {}
        self._new_head("")

    def _new_head(self, parent: str) -> None:
        self.head = f"volume-head-{next(self._numbers):03}.img"
        self.files[self.head] = Disk(parent, created=_now())

    def snapshot(self, name: str, *, user_created: bool, labels: dict[str, str]) -> None:
        """Turn the head into a snapshot and begin a new one."""
        file = snapshot_file(name)
        if file in self.files:
            raise RefusedError(f"snapshot {file} is already existing")
        head = self.files.pop(self.head)
        self.files[file] = replace(head, user_created=user_created, labels=labels, created=_now())
        self._new_head(file)

    def mark_removed(self, name: str) -> None:
        """Mark a snapshot for the next purge; nothing if there is none."""
        if disk := self.files.get(snapshot_file(name)):
            disk.removed = True

    def purge(self) -> None:
        """Free what is marked, but not the latest snapshot."""
        for name in [name for name, disk in self.files.items() if disk.removed]:
            if name != self.files[self.head].parent:
                parent = self.files.pop(name).parent
                for disk in self.files.values():
                    disk.parent = parent if disk.parent == name else disk.parent

    def revert(self, name: str) -> None:
        """Begin a new head on a snapshot."""
        del self.files[self.head]
        self._new_head(snapshot_file(name))

    def take(self, files: dict[str, Disk]) -> None:
        """Have these snapshots, the last one below the head, and nothing else."""
        del self.files[self.head]
        self.files = {name: replace(disk) for name, disk in files.items()}
        self._new_head(list(files)[-1] if files else "")

    @property
    def snapshots(self) -> dict[str, Disk]:
        """Everything but the head, the oldest first."""
        return {name: disk for name, disk in self.files.items() if name != self.head}

    def to_wire(self) -> dict[str, pb.DiskInfo]:
        """Return the files as a replica tells of them."""
        return {
            name: pb.DiskInfo(
                name=name,
                parent=disk.parent,
                children={child: True for child, each in self.files.items() if each.parent == name},
                removed=disk.removed,
                user_created=disk.user_created,
                created=disk.created,
                size=str(disk.size),
                labels=disk.labels,
            )
            for name, disk in self.files.items()
        }


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
