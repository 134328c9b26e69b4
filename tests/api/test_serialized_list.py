"""The list that is serialized already is right and stays small, asked for or not."""

from instance_manager.api.wire import SerializedList
from tests.app.conftest import World


async def test_a_list_that_nobody_asks_for_does_not_remember_every_name_there_has_been() -> None:
    world = World()
    served = SerializedList(world.supervisor, lambda process: f"{process.name} {process.state};".encode())
    await world.running("kept")
    for number in range(10_000):
        world.events.notify(f"gone-{number}")
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
        world.events.notify(f"gone-{number}")
    assert served.get() == b""
