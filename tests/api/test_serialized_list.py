"""The list that is serialized already is right and stays small, asked for or not."""

from dataclasses import replace

import pytest

from instance_manager.api.instance_wire import serialize_entry, serialize_one
from instance_manager.api.serialized import SerializedList, SerializedProcesses
from instance_manager.core.process import ExitStatus, Process
from instance_manager.pb.imrpc.instance_pb2 import InstanceListResponse, InstanceResponse
from tests.support.world import World, spec


async def test_a_list_that_nobody_asks_for_does_not_remember_every_name_there_has_been() -> None:
    world = World()
    served = SerializedList(world.supervisor, lambda process: f"{process.name} {process.state};".encode())
    await world.running("kept")
    for number in range(10_000):
        world.supervisor.changed.publish(f"gone-{number}")
    await world.running("late")
    assert len(served._changed) < 2_000
    assert sorted(served.get().split(b";")) == [b"", b"kept running", b"late running"]


async def test_what_was_listed_and_is_gone_is_not_forgotten() -> None:
    world = World(obeys=["SIGINT"])
    served = SerializedList(world.supervisor, lambda process: process.name.encode())
    process = await world.running("brief")
    assert served.get() == b"brief"
    world.supervisor.delete("brief")
    await world.told(process, "deleted")
    for number in range(10_000):
        world.supervisor.changed.publish(f"gone-{number}")
    assert served.get() == b""


async def test_a_list_with_one_that_cannot_be_serialized_is_an_error_and_not_one_without_it() -> None:
    world = World()

    def serialize(process: Process) -> bytes:
        if process.name == "odd" and broken:
            raise ValueError("cannot be serialized")
        return process.name.encode()

    served, broken = SerializedList(world.supervisor, serialize), True
    await world.running("odd")
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be serialized"):
            served.get()
    broken = False
    assert served.get() == b"odd"


async def test_a_type_that_a_damaged_journal_tells_does_not_break_the_list() -> None:
    world = World()
    served = SerializedList(world.supervisor, serialize_entry)
    world.supervisor.create(replace(spec("vol-e-1"), instance_type="enginf"))
    assert InstanceListResponse.FromString(served.get()).instances["vol-e-1"].spec.type == "engine"


async def test_who_asks_about_a_failed_process_learns_that_it_is_being_deleted() -> None:
    world = World()
    each, served = (
        SerializedProcesses(world.supervisor, serialize_one),
        SerializedList(world.supervisor, serialize_entry),
    )
    process = await world.running("failed")
    child = world.spawner.child(process.uuid)
    child.tree.clear()
    child.exit(ExitStatus(code=1))
    await world.told(process, "error")
    assert not InstanceResponse.FromString(each.get("failed")).deleted
    assert not InstanceListResponse.FromString(served.get()).instances["failed"].deleted
    told = len(world.events.changes)
    world.supervisor.delete("failed")
    answer = InstanceResponse.FromString(each.get("failed"))
    assert (answer.status.state, answer.deleted) == ("error", True)
    assert InstanceListResponse.FromString(served.get()).instances["failed"].deleted
    # It is no transition: watchers are told of the deletion when nothing is left.
    assert len(world.events.changes) == told
    child.tree.set()
    await world.told(process, "deleted")
