"""Errors that nobody has foreseen: each ends the work of one process only, and leaves nothing behind."""

import pytest
from structlog.testing import capture_logs

from instance_manager.core.process import Body, State
from tests.support.world import RETRY_INTERVAL, STOP_TIMEOUT, World, spec


@pytest.fixture
async def defective() -> World:
    """A world in which errors are logged; each is looked for by the test."""
    return World(obeys=["SIGKILL"])


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("ascii", "ü", 0, 1, "?"), KeyError("x"), OSError(5, "EIO")]
)
async def test_a_spawn_that_fails_unexpectedly_frees_the_name_and_the_ports(
    defective: World, error: Exception
) -> None:
    world = defective
    world.spawner.failures.append(error)
    with pytest.raises(type(error)):
        world.supervisor.create(spec("r", ports=2))
    assert (world.supervisor.processes(), world.supervisor.remaining) == ({}, [])
    assert (world.supervisor.registry.free_ports, world.logs.writers["r"]) == (10, 0)
    assert world.events.states("uuid-0")[-1] == "deleted"
    assert world.supervisor.create(spec("r", ports=2)).state is State.STARTING


async def test_a_readiness_check_that_breaks_is_a_process_that_did_not_get_ready(defective: World) -> None:
    world = defective
    process = world.supervisor.create(spec("r", ports=1))
    assert process.ports is not None
    port = process.ports.start
    await world.until(lambda: port in world.readiness.waiting)
    with capture_logs() as logs:
        world.readiness.fail(port, ValueError("unknown enum value 7"))
        await world.told(process, "error")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["readiness check failed"]
    assert "unknown enum value 7" in world.supervisor.get("r").error_msg
    assert world.child(process).signals == [("SIGINT", False)]


async def test_a_search_for_descendants_that_breaks_is_made_again(defective: World) -> None:
    world = defective
    process = await world.running("r")
    world.child(process).remains.append(RuntimeError("can't start new thread"))
    world.supervisor.delete("r")
    world.child(process).exit()
    await world.until(lambda: "can't start new thread" in world.supervisor.get("r").error_msg)
    await world.until(lambda: world.clock.delays == [RETRY_INTERVAL])
    world.clock.advance(RETRY_INTERVAL)
    await world.told(process, "deleted")
    assert world.supervisor.remaining == []


async def test_a_signal_that_cannot_be_sent_does_not_stop_the_stop(defective: World) -> None:
    world = defective
    first, second = await world.running("a"), await world.running("b")
    world.child(first).signal_failures.append(OSError(22, "Invalid argument"))
    with capture_logs() as logs:
        world.supervisor.delete("a")
        world.supervisor.delete("b")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["action failed"]
    assert world.child(second).signals == [("SIGINT", False)], "another process is not concerned"
    world.clock.advance(STOP_TIMEOUT)
    assert ("SIGKILL", True) in world.child(first).signals, "the timer was set all the same"
    await world.told(first, "deleted")
    assert first.body is Body.ALIVE
