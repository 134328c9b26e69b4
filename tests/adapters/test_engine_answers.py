"""Answers of engines that cannot be true are errors, before anything is made of them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from instance_manager.adapters.engine import Channels, engines_over
from instance_manager.adapters.engine.controllers import MOST_COPIED
from instance_manager.adapters.engine.values import MOST_FILES, MOST_LABELS
from instance_manager.app.engine import Engines
from instance_manager.core.engine import Engine, Mode, Replica
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.ptypes import common_pb2, controller_pb2, replica_pb2
from instance_manager.platform.background import Background
from tests.support.engine.process import EngineProcess

R1 = "vol1-r-1"


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    kept = Channels(Background())
    yield engines_over(kept)
    await kept.close()


async def odd(engine: EngineProcess, method: str, at: str, answer: Any) -> None:
    await engine.tell(odd=method, at=at, answer=answer.SerializeToString().hex())


def replica(files: int = 1, children: int = 0, labels: int = 0) -> replica_pb2.ReplicaGetResponse:
    told = replica_pb2.Replica(size="1")
    for number in range(files):
        told.disks[f"volume-snap-{number}.img"].name = "x"
    disk = told.disks["volume-snap-0.img"]
    for number in range(children):
        disk.children[str(number)] = True
    for number in range(labels):
        disk.labels[str(number)] = ""
    return replica_pb2.ReplicaGetResponse(replica=told)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (replica(files=MOST_FILES + 1), "1025 files"),
        (replica(children=MOST_FILES + 1), "1025 children"),
        (replica(labels=MOST_LABELS + 1), "16385 labels"),
        (replica_pb2.ReplicaGetResponse(), "cannot read its size ''"),
        (
            replica_pb2.ReplicaGetResponse(replica=replica_pb2.Replica(size="9" * 5000)),
            "cannot read its size",
        ),
    ],
    ids=["files", "children", "labels", "no size", "a large size"],
)
async def test_a_replica_that_cannot_be_is_an_error(
    engine: EngineProcess, engines: Engines, told: Any, text: str
) -> None:
    await odd(engine, "ReplicaGet", R1, told)
    address = engine.replicas[R1]
    with pytest.raises(UpstreamError, match=text) as error:
        await engines.replicas.get(Replica(address, Mode.RW, "vol1"))
    assert error.value.code == "UNKNOWN"
    assert str(error.value).startswith(f"failed to get replica {address.removeprefix('tcp://')}: ")
    assert len(str(error.value)) < 200


async def test_a_replica_with_as_much_as_there_can_be_is_read(
    engine: EngineProcess, engines: Engines
) -> None:
    await odd(engine, "ReplicaGet", R1, replica(MOST_FILES, MOST_FILES, MOST_LABELS))
    found = await engines.replicas.get(Replica(engine.replicas[R1], Mode.RW, "vol1"))
    assert len(found.disks) == MOST_FILES


async def test_a_replica_that_is_listed_twice_is_an_error(engine: EngineProcess, engines: Engines) -> None:
    each = controller_pb2.ControllerReplica(address=controller_pb2.ReplicaAddress(address="tcp://h:1"))
    await odd(engine, "ReplicaList", "controller", controller_pb2.ReplicaListReply(replicas=[each] * 2))
    with pytest.raises(UpstreamError, match="it tells of tcp://h:1 more than once"):
        await engines.controllers.replicas(Engine(engine.address, "", ""))


async def test_more_files_to_copy_than_there_can_be_are_an_error(
    engine: EngineProcess, engines: Engines
) -> None:
    files = [common_pb2.SyncFileInfo(from_file_name="x")] * (MOST_COPIED + 1)
    told = controller_pb2.ReplicaPrepareRebuildReply(sync_file_info_list=files)
    await odd(engine, "ReplicaPrepareRebuild", "controller", told)
    with pytest.raises(UpstreamError, match="4097 files to copy"):
        await engines.controllers.prepare_rebuild(
            Engine(engine.address, "", ""), Replica("tcp://h:1", Mode.WO, "")
        )
