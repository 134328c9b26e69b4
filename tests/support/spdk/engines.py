"""What engines of the SPDK service of the tests do: snapshots, replicas and their rebuilds, clones, sizes."""

from typing import Any

from google.protobuf import empty_pb2

from instance_manager.pb.spdkrpc import spdk_pb2 as pb
from tests.support.spdk.state import RefusedError, State

EMPTY = empty_pb2.Empty()
HEAD = "volume-head"
BEGUN, COMPLETE = "in_progress", "complete"


class Engines:
    """Methods of SPDKService by their own names, with an underscore before.

    A rebuild, a clone or a checksum goes on until `finish`.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def _of(self, frontend: str) -> Any:
        """Return the engine of a frontend."""
        return self._state.find("Engine", self._state.find("EngineFrontend", frontend).engine_name)

    def _done(self, *prefixes: str) -> Any:
        for prefix in prefixes or ("Engine",):
            self._state.changed(prefix)
        return EMPTY

    def _EngineFrontendExpand(self, request: Any) -> Any:  # noqa: N802
        engine, frontend = self._of(request.name), self._state.find("EngineFrontend", request.name)
        if request.size < engine.spec_size:
            raise RefusedError("INVALID_ARGUMENT", "cannot shrink")
        engine.spec_size = frontend.spec_size = request.size
        return self._done("Engine", "EngineFrontend")

    def _EngineSnapshotMaxCountSet(self, request: Any) -> Any:  # noqa: N802
        self._state.find("Engine", request.name).snapshot_max_count = request.count
        return self._done()

    # --- snapshots ---

    def _EngineFrontendSnapshotCreate(self, request: Any) -> Any:  # noqa: N802
        engine, name = self._of(request.name), request.snapshot_name
        if name in engine.snapshots:
            raise RefusedError("ALREADY_EXISTS", f"snapshot {name} already exists")
        made = engine.snapshots[name]
        made.name, made.parent, made.actual_size = name, engine.head.parent, 4096
        made.creation_time, made.user_created = "2026-01-01T00:00:01Z", request.user_created
        made.children[HEAD] = True
        if made.parent:
            del engine.snapshots[made.parent].children[HEAD]
            engine.snapshots[made.parent].children[name] = True
        engine.head.parent = name
        self._done()
        return pb.SnapshotResponse(snapshot_name=name)

    def _EngineFrontendSnapshotDelete(self, request: Any) -> Any:  # noqa: N802
        self._remove(self._of(request.name), request.snapshot_name)
        return self._done()

    def _remove(self, engine: Any, name: str) -> None:
        if name not in engine.snapshots:
            raise RefusedError("NOT_FOUND", f"cannot find snapshot {name}")
        gone = engine.snapshots[name]
        for child in gone.children:
            (engine.head if child == HEAD else engine.snapshots[child]).parent = gone.parent
            if gone.parent:
                engine.snapshots[gone.parent].children[child] = True
        if gone.parent:
            del engine.snapshots[gone.parent].children[name]
        del engine.snapshots[name]

    def _EngineFrontendSnapshotRevert(self, request: Any) -> Any:  # noqa: N802
        engine, name = self._of(request.name), request.snapshot_name
        if name not in engine.snapshots:
            raise RefusedError("NOT_FOUND", f"cannot find snapshot {name}")
        engine.snapshots[engine.head.parent].children.pop(HEAD)
        engine.snapshots[name].children[HEAD] = True
        engine.head.parent = name
        return self._done()

    def _EngineFrontendSnapshotPurge(self, request: Any) -> Any:  # noqa: N802
        engine = self._of(request.name)
        for name in [each.name for each in engine.snapshots.values() if not each.user_created]:
            self._remove(engine, name)
        return self._done()

    def _EngineSnapshotHash(self, request: Any) -> Any:  # noqa: N802
        engine = self._state.find("Engine", request.name)
        if request.snapshot_name not in engine.snapshots:
            raise RefusedError("NOT_FOUND", f"cannot find snapshot {request.snapshot_name}")
        for replica in engine.replica_address_map:
            status = pb.ReplicaSnapshotHashStatusResponse(state=BEGUN)
            self._state.tables["Hash"][f"{replica}/{request.snapshot_name}"] = status
        return self._done("Hash")

    def _EngineSnapshotHashStatus(self, request: Any) -> Any:  # noqa: N802
        engine, table = self._state.find("Engine", request.name), self._state.tables["Hash"]
        absent = pb.ReplicaSnapshotHashStatusResponse(state="error", error="no checksum")
        return pb.EngineSnapshotHashStatusResponse(
            status={
                each: table.get(f"{each}/{request.snapshot_name}", absent)
                for each in engine.replica_address_map
            }
        )

    def _EngineSnapshotClone(self, request: Any) -> Any:  # noqa: N802
        engine = self._state.find("Engine", request.name)
        for replica in engine.replica_address_map:
            self._state.tables["Clone"][replica] = pb.ReplicaSnapshotCloneDstStatusCheckResponse(
                is_cloning=True,
                src_replica_name=request.dst_replica_src_replica_pair_map.get(replica, ""),
                src_replica_address=request.src_engine_address,
                snapshot_name=request.snapshot_name,
                state=BEGUN,
                progress=40,
            )
        return self._done("Clone")

    def _ReplicaSnapshotCloneDstStatusCheck(self, request: Any) -> Any:  # noqa: N802
        return self._state.entry("Clone", request.name)

    # --- replicas ---

    def _EngineFrontendReplicaAdd(self, request: Any) -> Any:  # noqa: N802
        engine = self._of(request.engine_frontend_name)
        if pb.ReplicaMode.WO in engine.replica_mode_map.values():
            raise RefusedError("FAILED_PRECONDITION", "replica add is already in progress")
        sources = sorted(engine.replica_address_map.items())
        engine.replica_address_map[request.replica_name] = request.replica_address
        engine.replica_mode_map[request.replica_name] = pb.ReplicaMode.WO
        status = pb.ReplicaRebuildingDstShallowCopyCheckResponse(state=BEGUN, total_state=BEGUN)
        status.total_progress, status.progress = 40, 80
        if sources:
            status.src_replica_name, status.src_replica_address = sources[0]
        self._state.tables["Rebuild"][request.replica_name] = status
        return self._done()

    def _EngineReplicaDelete(self, request: Any) -> Any:  # noqa: N802
        engine = self._state.find("Engine", request.engine_name)
        for name, address in list(engine.replica_address_map.items()):
            if request.replica_name == name or request.replica_address == address:
                del engine.replica_address_map[name]
                engine.replica_mode_map.pop(name)
        return self._done()

    def _ReplicaRebuildingDstShallowCopyCheck(self, request: Any) -> Any:  # noqa: N802
        return self._state.entry("Rebuild", request.name)

    def _ReplicaRebuildingDstSetQosLimit(self, request: Any) -> Any:  # noqa: N802
        self._state.entry("Rebuild", request.name)
        return EMPTY

    def finish(self) -> None:
        """Complete whatever goes on."""
        for engine in self._state.all_of("Engine").values():
            for name, mode in list(engine.replica_mode_map.items()):
                if mode == pb.ReplicaMode.WO:
                    engine.replica_mode_map[name] = pb.ReplicaMode.RW
        for status in self._state.tables["Rebuild"].values():
            status.state = status.total_state = COMPLETE
            status.progress = status.total_progress = 100
        for status in self._state.tables["Clone"].values():
            status.is_cloning, status.state, status.progress = False, COMPLETE, 100
        for status in self._state.tables["Hash"].values():
            status.state, status.checksum = COMPLETE, "0a0b"
        self._state.changed("Engine")
