"""Lists stay within what clients accept, whatever is created, and room that was taken is given back."""

import itertools
from collections.abc import Callable

import pytest

from instance_manager.api.instance_wire import serialize_entry
from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.app.registry import MAX_LIST_BYTES
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import MAX_ERROR_BYTES, Process, State
from instance_manager.core.spec import ProcessSpec
from tests.support.world import World

Make = Callable[[int], ProcessSpec]

WIDE: dict[str, Make] = {
    "long paths": lambda n: ProcessSpec(f"r-{n}", "/" + "p" * 4000),
    "long names": lambda n: ProcessSpec(f"{n:05}" + "n" * 246, "/bin/r", volume_name="v" * 251),
    "many words": lambda n: ProcessSpec(f"r-{n}", "/bin/r", args=("",) * 1000),
    "many ports": lambda n: ProcessSpec(f"r-{n}", "/bin/r", port_count=1, port_args=("a," * 900,)),
    "long arguments with ports": lambda n: ProcessSpec(
        f"r-{n}", "/bin/r", port_count=8, port_args=("p" * 2000,) * 8
    ),
    "letters that take several bytes": lambda n: ProcessSpec(f"r-{n}", "/bin/r", volume_name="\u8a9e" * 251),
}


def fill(world: World, make: Make) -> list[Process]:
    """Create processes until one is refused; each fails with the longest message."""
    created = []
    for number in itertools.count():
        world.spawner.failures.append(CannotExecuteError("cannot execute " + "\u8a9e" * 4000))
        try:
            created.append(world.supervisor.create(make(number)))
        except ResourceExhaustedError:
            return created
    raise AssertionError


@pytest.mark.parametrize("kind", WIDE)
async def test_a_list_of_all_that_may_be_created_fits_into_what_clients_accept(
    kind: str,
) -> None:
    world = World(ports=20_000)
    created = fill(world, WIDE[kind])
    assert {process.state for process in created} == {State.ERROR}
    assert max(len(process.error_msg.encode()) for process in created) <= MAX_ERROR_BYTES
    size = sum(len(serialize_entry(process)) for process in world.supervisor.processes().values())
    assert MAX_LIST_BYTES / 4 < size <= MAX_LIST_BYTES


async def test_room_in_the_list_is_given_back() -> None:
    world = World()
    for _ in range(2):
        for process in fill(world, WIDE["long paths"]):
            world.supervisor.delete(process.name)
        assert world.supervisor.remaining == []
        world.spawner.failures.clear()
    assert world.supervisor.create(WIDE["long paths"](0)).state is State.STARTING
