"""What the SPDK service of the tests holds, kept in memory or in a file.

These are instances of five types, and tables of everything else: disks, backing images, and how work goes.
"""

import asyncio
import itertools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from instance_manager.pb.spdkrpc import shard_pb2, shardgroup_pb2
from instance_manager.pb.spdkrpc import spdk_pb2 as pb

FIRST_PORT = 20_000


class RefusedError(Exception):
    """The service does not do it; `code` is the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Type:
    """One of the five types: its methods begin with `prefix`."""

    prefix: str
    message: type[Any]
    response: type[Any]
    listed: str


TYPES: Mapping[str, Type] = {
    each.prefix: each
    for each in (
        Type("Engine", pb.Engine, pb.EngineListResponse, "engines"),
        Type("EngineFrontend", pb.EngineFrontend, pb.EngineFrontendListResponse, "engine_frontends"),
        Type("Replica", pb.Replica, pb.ReplicaListResponse, "replicas"),
        Type("Shard", shard_pb2.Shard, shard_pb2.ShardListResponse, "shards"),
        Type("ShardGroup", shardgroup_pb2.ShardGroup, shardgroup_pb2.ShardGroupListResponse, "shard_groups"),
    )
}

TABLES: Mapping[str, type[Any]] = {
    "Disk": pb.Disk,
    "BackingImage": pb.BackingImage,
    "Rebuild": pb.ReplicaRebuildingDstShallowCopyCheckResponse,
    "Clone": pb.ReplicaSnapshotCloneDstStatusCheckResponse,
    "Hash": pb.ReplicaSnapshotHashStatusResponse,
    "Backup": pb.BackupStatusResponse,
    "Restore": pb.ReplicaRestoreStatusResponse,
    "Metrics": pb.Metrics,
}
"""What the tables of everything else hold, by their names."""
WATCHED = (*TYPES, "BackingImage")


class State:
    """Everything the service holds. With a file, the next service goes on with it."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._ports = itertools.count(FIRST_PORT)
        self._watchers: dict[str, set[asyncio.Event]] = {prefix: set() for prefix in WATCHED}
        self._clear()
        if file is not None and file.exists():
            for line in file.read_text().splitlines():
                name, key, data = line.split(" ")
                message = self.held.get(name)
                if message is None:
                    message = self.tables[name][bytes.fromhex(key).decode()] = TABLES[name]()
                message.MergeFromString(bytes.fromhex(data))

    def _clear(self) -> None:
        self.held: dict[str, Any] = {prefix: kind.response() for prefix, kind in TYPES.items()}
        self.tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
        self.log_level = "info"
        self.log_flags = ""

    def reset(self) -> None:
        """Hold nothing."""
        self._clear()
        for prefix in WATCHED:
            self.changed(prefix)

    def all_of(self, prefix: str) -> Any:
        """Return the map of name to message."""
        return getattr(self.held[prefix], TYPES[prefix].listed)

    def find(self, prefix: str, name: str) -> Any:
        """Return one instance, to look at or to change."""
        if name not in self.all_of(prefix):
            raise RefusedError("NOT_FOUND", f"there is no {prefix} named {name}")
        return self.all_of(prefix)[name]

    def entry(self, table: str, key: str) -> Any:
        """Return an entry of a table, to look at or to change."""
        if key not in self.tables[table]:
            raise RefusedError("NOT_FOUND", f"cannot find {table} {key}")
        return self.tables[table][key]

    def create(self, prefix: str, request: Any) -> Message:
        """Make an instance out of what the request has in common with it, running at once."""
        name = f"{request.volume_name}-{request.slot_index}" if prefix == "Shard" else request.name
        if name in self.all_of(prefix):
            raise RefusedError("ALREADY_EXISTS", f"there is a {prefix} named {name}")
        made = self.all_of(prefix)[name]
        for field, value in request.ListFields():
            target = made.DESCRIPTOR.fields_by_name.get(field.name)
            if target is not None and not target.is_repeated and target.type == field.type:
                setattr(made, field.name, value)
        made.name = name
        FINISH[prefix](made, request, next(self._ports))
        self.changed(prefix)
        return made  # type: ignore[no-any-return]

    def delete(self, prefix: str, name: str) -> None:
        """Remove an instance."""
        self.find(prefix, name)
        del self.all_of(prefix)[name]
        self.changed(prefix)

    def changed(self, prefix: str) -> None:
        """Ping the watchers of a type or a table, if there may be any, and write everything down."""
        for watcher in self._watchers.get(prefix, ()):
            watcher.set()
        if self._file is not None:
            lines = [f"{prefix}  {held.SerializeToString().hex()}\n" for prefix, held in self.held.items()]
            lines += (
                f"{name} {key.encode().hex()} {each.SerializeToString().hex()}\n"
                for name, table in self.tables.items()
                for key, each in table.items()
            )
            self._file.write_text("".join(lines))

    def watchers(self, prefix: str) -> set[asyncio.Event]:
        """Return the events to set when an instance of the type changes."""
        return self._watchers[prefix]


def _engine(made: Any, request: Any, port: int) -> None:
    made.state, made.uuid, made.port, made.ip = "running", str(uuid.uuid4()), port, "127.0.0.1"
    made.target_port, made.standby_target_port, made.ublk_id = port + 1000, port + 2000, 7
    made.replica_address_map.update(request.replica_address_map)
    made.replica_mode_map.update(dict.fromkeys(request.replica_address_map, pb.ReplicaMode.RW))
    made.head.name, made.head.creation_time = "volume-head", "2026-01-01T00:00:00Z"
    made.endpoint = f"/dev/longhorn/{made.volume_name}"


def _frontend(made: Any, request: Any, port: int) -> None:
    made.state, made.uuid, made.target_port = "running", str(uuid.uuid4()), port
    made.endpoint, made.active_path, made.preferred_path = "/dev/nvme0n1", "10.0.0.1:3000", "10.0.0.2:3000"
    path = made.paths.add(engine_name=request.engine_name, target_ip="10.0.0.1", target_port=3000)
    path.nqn, path.nguid, path.ana_state = f"nqn.{made.name}", "0a0b", "optimized"


def _replica(made: Any, request: Any, port: int) -> None:
    made.state, made.uuid = "running", str(uuid.uuid4())
    made.port_start, made.port_end = port, port + max(request.port_count, 1) - 1


def _shard(made: Any, _: Any, port: int) -> None:
    made.uuid, made.port = str(uuid.uuid4()), port


def _shard_group(made: Any, request: Any, port: int) -> None:
    made.process_state, made.port = "running", port
    made.head_lvol_uuid, made.data_chunks = str(uuid.uuid4()), request.spec.data_chunks


FINISH: Mapping[str, Callable[[Any, Any, int], None]] = {
    "Engine": _engine,
    "EngineFrontend": _frontend,
    "Replica": _replica,
    "Shard": _shard,
    "ShardGroup": _shard_group,
}
