"""Deleting orphans: by auto-deletion or on a person's order, the right one, and never on a doubt."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from instance_manager.orphans.model import AUTO_DELETION, Resolution
from tests.orphans.world import MANAGER, NEIGHBOUR, OrphanWorld, instance, orphan_world, owner

Sized = Callable[[int, int], int]


async def declared(world: OrphanWorld, name: str = "a-e-0") -> None:
    await world.abandon(name)
    await world.passes(10)
    assert world.orphans


async def test_auto_deletion_is_off_unless_it_is_asked_for() -> None:
    async with orphan_world() as world:
        await declared(world)
        await world.passes(2_000)
        assert not world.manager.asked
        assert len(world.orphans) == 1


async def test_auto_deletion_deletes_after_the_grace_period_and_says_so() -> None:
    async with orphan_world(auto_deletion=True, grace=300.0) as world:
        await declared(world)
        await world.passes(299)
        assert not world.manager.asked
        with capture_logs() as logs:
            await world.passes(1)
        assert world.manager.asked == [("a-e-0", "u1")]
        world.manager.end("a-e-0")
        await world.settle()
        assert [record.resolution for record in world.records.history] == [Resolution.DELETED]
        (entry,) = [entry for entry in logs if entry["event"] == "orphan deleted"]
        assert (entry["uuid"], entry["by"]) == ("u1", AUTO_DELETION)
        assert "no owner" in entry["reason"]


async def test_the_grace_period_goes_on_across_a_restart_of_the_agent() -> None:
    async with orphan_world(auto_deletion=True, grace=300.0) as world:
        await declared(world)
        await world.passes(200)
        await world.crash()
        await world.passes(99)
        assert not world.manager.asked
        await world.passes(1)
        assert world.manager.deleted == ["u1"]


async def test_a_person_has_an_orphan_deleted_at_once_and_only_that_one() -> None:
    async with orphan_world() as world:
        await declared(world)
        await declared(world, "b-e-0")
        name = next(r.name for r in world.orphans if r.instance.name == "a-e-0")
        await world.records.request_delete(name, "alice", world.clock.now())
        await world.passes(3)
        assert world.manager.asked == [("a-e-0", "u1")]
        world.manager.end("a-e-0")
        await world.settle()
        (ended,) = world.records.history
        assert ended.resolution is Resolution.DELETED
        assert "alice" in ended.outcome


async def test_what_is_gone_after_a_person_asked_for_it_is_told_with_the_person() -> None:
    async with orphan_world() as world:
        await declared(world)
        world.manager.quiet = True
        (record,) = world.orphans
        world.manager.end("a-e-0")
        # The agent has not read this when it closes the record.
        world.records.open[record.name] = replace(record, requested_by="root", requested_at=1e9)
        with capture_logs() as logs:
            await world.passes(600)
        (told,) = [line for line in logs if line["event"] == "orphan record ended"]
        assert told["outcome"] == "the instance is gone; root had asked for its deletion"


async def test_an_orphan_is_not_deleted_on_a_persons_order_if_its_owner_is_back() -> None:
    async with orphan_world() as world:
        await declared(world)
        world.owners.quiet = True
        world.owners.put(owner("a-e-0"))
        await world.records.request_delete(world.orphans[0].name, "alice", world.clock.now())
        await world.passes(30)
        assert not world.manager.asked
        assert [record.resolution for record in world.records.history] == [Resolution.OWNED]


async def test_a_persons_order_needs_two_looks_where_there_are_no_owners() -> None:
    async with orphan_world(confirm_delay=10.0) as world:
        await declared(world)
        world.owners.owners.clear()
        (record,) = world.orphans
        await world.records.request_delete(record.name, "alice", world.clock.now())
        await world.passes(9)
        assert not world.manager.asked
        await world.passes(60)
        assert ("a-e-0", "u1") in world.manager.asked


async def test_a_name_that_has_gone_to_another_process_is_not_deleted() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0) as world:
        await declared(world)
        world.manager.quiet = world.owners.quiet = True
        world.manager.put(instance("a-e-0", "u2"))
        await world.passes(100)
        assert not world.manager.deleted
        assert world.records.history[0].resolution is Resolution.REPLACED


async def test_a_delete_that_fails_is_kept_and_tried_again_across_restarts() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0) as world:
        await declared(world)
        world.manager.refusal = "try another time"
        await world.passes(200)
        failed = world.orphans[0].attempts
        assert failed > 1
        assert world.orphans[0].last_error == "try another time"
        await world.crash()
        await world.passes(1000)
        assert world.orphans[0].attempts > failed
        world.manager.refusal = ""
        await world.passes(400)
        assert world.manager.deleted == ["u1"]


async def test_a_delete_that_fails_again_and_again_is_tried_less_and_less_often() -> None:
    async with orphan_world(auto_deletion=True, grace=0.0, retry=10.0, resync=300.0) as world:
        world.manager.refusal = "not now"
        await declared(world)
        tried = []
        for _ in range(100):
            await world.passes(10)
            tried.append(len(world.manager.asked))
        assert tried[10] - tried[0] > tried[-1] - tried[-11]
        assert tried[-1] < 20  # every 10 seconds it would be 100


async def test_a_delete_waits_while_the_owner_or_the_process_cannot_be_read() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0) as world:
        await declared(world)
        world.owners.fail("api server away")
        await world.passes(300)
        assert not world.manager.asked
        assert "api server away" in world.orphans[0].last_error
        world.owners.fail("")
        world.manager.fail("connection refused")
        await world.passes(300)
        assert not world.manager.asked
        world.manager.fail("")
        await world.passes(400)
        assert world.manager.deleted == ["u1"]


async def test_a_process_that_does_not_end_keeps_its_record() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0) as world:
        await declared(world)
        await world.passes(1000)
        assert world.manager.asked == [("a-e-0", "u1")]
        assert world.orphans[0].deleted_by == AUTO_DELETION


async def test_nothing_is_deleted_automatically_while_there_are_too_many_suspects() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0, max_per_minute=3) as world:
        await declared(world)
        for number in range(4):
            await world.abandon(f"b{number}-e-0", f"u-{number}")
        await world.passes(1000)
        assert not world.manager.asked
        assert "allowed" in world.orphans[0].last_error


async def test_nothing_is_deleted_automatically_on_an_instance_manager_that_owners_call_otherwise() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0) as world:
        for name in (NEIGHBOUR, "a-e-0"):
            world.owners.put(owner(name, instance_manager="im-renamed"))
        world.manager.put(instance("a-e-0"))
        with capture_logs() as logs:
            await world.passes(1000)
        assert {record.instance.name for record in world.orphans} == {NEIGHBOUR, "a-e-0"}
        assert not world.manager.asked
        assert "is the name right?" in world.orphans[0].last_error
        assert any(entry.get("what") == f"name of {MANAGER}" for entry in logs)
        # As soon as the name is known to be right, what has moved is deleted.
        world.owners.put(owner(NEIGHBOUR))
        await world.passes(400)
        assert world.manager.deleted == ["u1"]


async def test_an_order_that_had_to_wait_for_others_is_not_given_before_another_look() -> None:
    async with orphan_world(auto_deletion=True, grace=60.0) as world:
        for number in range(17):
            await world.abandon(f"a{number}-e-0", f"u-{number}")
        await world.passes(69)
        world.manager.unheld.clear()
        world.clock.advance(1)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(world.manager.asked) == 16
        (waits,) = {record.instance.name for record in world.orphans} - dict(world.manager.asked).keys()
        world.clock.advance(20)
        world.owners.quiet = True
        world.owners.put(owner(waits))
        world.manager.unheld.set()
        await world.passes(100)
        assert len(world.manager.asked) == 16
        assert waits not in dict(world.manager.asked)
        assert [(each.instance.name, each.resolution) for each in world.records.history] == [
            (waits, Resolution.OWNED)
        ]


@pytest.mark.timeout(300)
async def test_an_orphan_whose_owner_comes_back_before_the_live_reread_is_never_deleted(sized: Sized) -> None:
    chance = random.Random(14)
    kills = 0
    for _ in range(sized(150, 1000)):
        async with orphan_world(auto_deletion=True, grace=60.0, poll_interval=30.0) as world:
            await declared(world)
            world.owners.quiet = chance.random() < 0.5
            reads_left = chance.randrange(2)

            def back(world: OrphanWorld = world) -> None:
                nonlocal reads_left
                if reads_left == 0:
                    world.owners.put(owner("a-e-0"))
                reads_left -= 1

            early = chance.uniform(0, 60)
            if chance.random() < 0.5:
                await world.passes(early)
                world.owners.put(owner("a-e-0"))
            else:
                world.owners.before_read = back
            await world.passes(70)
            kills += len(world.manager.asked)
            assert not world.orphans
    assert kills == 0


async def test_an_orphan_whose_owner_stays_away_is_deleted_each_time() -> None:
    for _ in range(20):
        async with orphan_world(auto_deletion=True, grace=60.0) as world:
            await declared(world)
            await world.passes(70)
            assert world.manager.deleted == ["u1"]


class Trouble:
    """An owner source that is well, unreachable or empty by error, and changes between any two reads."""

    def __init__(self, world: OrphanWorld, chance: random.Random, kinds: tuple[str, ...]) -> None:
        self.world = world
        self.whole = dict(world.owners.owners)
        self.chance = chance
        self.kinds = kinds

    def __call__(self) -> None:
        kind = self.chance.choice(self.kinds)
        self.world.owners.failure = "unreachable" if kind == "away" else ""
        self.world.owners.owners = {} if kind == "empty" else self.whole


@pytest.mark.parametrize("auto_deletion", [False, True])
@pytest.mark.parametrize(
    "kinds", [("away",), ("empty",), ("well", "empty"), ("well", "away"), ("well", "away", "empty")]
)
async def test_an_owner_source_that_is_away_empty_or_flapping_kills_nothing(
    kinds: tuple[str, ...], auto_deletion: bool, sized: Sized
) -> None:
    for seed in range(sized(2, 50)):
        async with orphan_world(auto_deletion=auto_deletion, grace=60.0) as world:
            for number in range(4):
                world.owners.put(owner(f"a{number}-e-0"))
                world.manager.put(instance(f"a{number}-e-0", f"u-{number}"))
            await world.settle()
            chance = random.Random(seed)
            trouble = Trouble(world, chance, kinds)
            world.owners.before_read = trouble
            for _ in range(30):
                trouble()
                if chance.random() < 0.3:
                    world.owners.relist()
                if chance.random() < 0.2:
                    world.owners.fail("cut off")
                await world.passes(chance.uniform(1, 60))
            assert not world.manager.asked
