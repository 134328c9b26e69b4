"""Read-only volumes become conditions of their engines."""

from instance_manager.core.conditions import FILESYSTEM_READ_ONLY, volume_key
from tests.support.world import World, spec

READ_ONLY = {FILESYSTEM_READ_ONLY: True}
WRITABLE = {FILESYSTEM_READ_ONLY: False}


async def test_an_engine_tells_when_its_volume_becomes_read_only_and_when_not_any_more(world: World) -> None:
    engine, replica = await world.running("vol-e-0"), await world.running("vol-r-0")
    assert (engine.conditions, replica.conditions) == (WRITABLE, {})
    before = world.events.revision
    for read_only, expected in ((frozenset({volume_key("vol")}), READ_ONLY), (frozenset[str](), WRITABLE)):
        world.supervisor.observe_mounts(read_only)
        assert world.supervisor.get("vol-e-0").conditions == expected
    assert world.supervisor.get("vol-r-0").conditions == {}
    told = [(c.process.uuid, c.process.conditions) for c in world.events.changes[before:]]
    assert told == [(engine.uuid, READ_ONLY), (engine.uuid, WRITABLE)]


async def test_the_same_observation_is_told_once(world: World) -> None:
    await world.running("vol-e-0")
    before = world.events.revision
    for _ in range(3):
        world.supervisor.observe_mounts(frozenset({volume_key("vol"), volume_key("other")}))
    assert world.events.revision == before + 1


async def test_an_engine_created_later_knows_what_was_observed_before(world: World) -> None:
    world.supervisor.observe_mounts(frozenset({volume_key("vol")}))
    assert world.supervisor.create(spec("vol-e-0")).conditions == READ_ONLY
    assert world.events.changes[0].process.conditions == READ_ONLY
    assert world.supervisor.create(spec("other-e-0")).conditions == WRITABLE


async def test_engines_are_observed_in_every_state_until_they_are_gone(world: World) -> None:
    ended, stopping = await world.running("a-e-0"), await world.running("b-e-0")
    world.child(ended).exit()
    await world.until(lambda: world.child(ended).gone)
    world.supervisor.delete("b-e-0")
    world.supervisor.observe_mounts(frozenset({volume_key("a"), volume_key("b")}))
    assert {p.name: p.conditions for p in world.supervisor.remaining} == {
        "a-e-0": READ_ONLY,
        "b-e-0": READ_ONLY,
    }
    world.child(stopping).exit()
    await world.told(stopping, "deleted")
    before = world.events.revision
    world.supervisor.observe_mounts(frozenset({volume_key("a")}))
    assert world.events.revision == before
