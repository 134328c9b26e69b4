"""The orphan agent among fakes: what it finds, what it leaves alone, and when its records end."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from instance_manager.orphans.events import OwnerEvent, OwnersListed
from instance_manager.orphans.interfaces import CannotReadError
from instance_manager.orphans.model import Resolution
from tests.orphans.world import MANAGER, NEIGHBOUR, OrphanWorld, instance, orphan_world, owner
from tests.support.fake_orphans import MemoryRecords


async def test_an_instance_whose_owner_was_removed_without_it_is_found() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        (record,) = world.orphans
        assert (record.instance.name, record.instance.uuid, record.manager) == ("a-e-0", "u1", MANAGER)
        assert record.exists
        assert record.created == world.clock.now()
        assert record.reason == "the instance has no owner"


async def test_nothing_is_judged_before_the_wait_is_over() -> None:
    async with orphan_world(confirm_delay=10.0) as world:
        await world.abandon("a-e-0")
        await world.passes(9.9)
        assert not world.orphans
        await world.passes(0.1)
        assert world.orphans


async def test_an_instance_that_is_deleted_properly_is_never_an_orphan() -> None:
    async with orphan_world() as world:
        world.owners.put(owner("a-e-0"))
        world.manager.put(instance("a-e-0"))
        await world.settle()
        # The watcher is told late: for it the process runs on, and only its owner is gone.
        world.manager.quiet = True
        world.manager.put(instance("a-e-0", state="stopping"))
        world.owners.remove("a-e-0")
        await world.passes(600)
        assert not world.orphans
        assert world.agent.counts["declared"] == 0


async def test_an_instance_whose_owner_the_watch_has_not_told_of_is_no_orphan() -> None:
    async with orphan_world() as world:
        world.owners.quiet = True
        world.owners.put(owner("a-e-0"))
        world.manager.put(instance("a-e-0"))
        await world.passes(600)
        assert not world.orphans


async def test_what_no_notification_has_told_is_found_by_looking_at_everything() -> None:
    async with orphan_world(resync=300.0) as world:
        await world.passes(20)
        world.owners.quiet = world.manager.quiet = True
        await world.abandon("a-e-0")
        await world.passes(200)
        assert not world.orphans
        await world.passes(400)
        assert [record.instance.name for record in world.orphans] == ["a-e-0"]


async def test_an_instance_without_a_uuid_is_counted_and_left_alone() -> None:
    async with orphan_world(auto_deletion=True, grace=0.0) as world:
        with capture_logs() as logs:
            world.manager.put(instance("old-e-0", uuid=""))
            await world.passes(1000)
        assert not world.orphans
        assert not world.manager.asked
        (status,) = world.agent.status().managers
        assert (status.instances, status.without_identity) == (2, 1)
        assert any("no identity" in entry.get("reason", "") for entry in logs)


# --- records ---


async def test_a_record_ends_when_the_instance_is_gone() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        world.manager.end("a-e-0")
        await world.settle()
        assert not world.orphans
        assert [record.resolution for record in world.records.history] == [Resolution.GONE]


async def test_a_record_ends_when_the_name_goes_to_another_uuid_and_that_one_is_left_alone() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        world.owners.put(owner("a-e-0"))
        world.manager.put(instance("a-e-0", "u2"))
        await world.passes(1000)
        assert not world.orphans
        assert world.records.history[0].resolution in {Resolution.REPLACED, Resolution.OWNED}
        assert not world.manager.asked


async def test_a_record_ends_when_the_owner_is_back() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        world.owners.put(owner("a-e-0"))
        await world.settle()
        assert not world.orphans
        assert [record.resolution for record in world.records.history] == [Resolution.OWNED]
        assert not world.manager.asked


async def test_a_record_ends_when_the_instance_manager_leaves() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        world.manager.leave()
        await world.passes(1000)
        assert [record.resolution for record in world.records.history] == [Resolution.MANAGER_LEFT]
        assert not world.manager.asked


async def test_the_records_of_an_earlier_agent_go_on() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        (before,) = world.orphans
        await world.crash()
        await world.passes(100)
        assert world.orphans == (before,)
        world.manager.end("a-e-0")
        await world.settle()
        assert not world.orphans


async def test_what_was_abandoned_while_no_agent_ran_is_found() -> None:
    async with orphan_world() as world:
        await world.stop()
        world.owners.put(owner("a-e-0"))
        world.manager.put(instance("a-e-0"))
        world.owners.remove("a-e-0")
        await world.start()
        await world.passes(10)
        assert [record.instance.name for record in world.orphans] == ["a-e-0"]


async def test_nothing_is_judged_while_the_records_cannot_be_read() -> None:
    async with orphan_world() as world:
        await world.stop()
        world.records.failure = "disk failure"
        world.agent = world.new_agent()
        await world.start()
        await world.abandon("a-e-0")
        await world.passes(100)
        assert world.agent.status().records_error == "disk failure"
        assert world.agent.counts["records_failed"] == 0
        world.records.failure = ""
        await world.passes(30)
        assert len(world.orphans) == 1


async def test_a_record_that_could_not_be_written_is_written_later() -> None:
    async with orphan_world() as world:
        await world.passes(5)
        await world.abandon("a-e-0")
        world.records.failure = "disk full"
        await world.passes(60)
        assert not world.orphans
        world.records.failure = ""
        await world.passes(60)
        assert len(world.orphans) == 1


async def test_records_of_instance_managers_that_are_not_followed_are_left_alone() -> None:
    records = MemoryRecords()
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        foreign = replace(world.orphans[0], manager="im-2")
        await world.records.create(foreign)
        await world.passes(1000)
        assert foreign in world.orphans
    assert not records.open


# --- the sources fail ---


async def test_an_instance_manager_that_is_away_is_not_taken_for_empty() -> None:
    async with orphan_world() as world:
        await world.abandon("a-e-0")
        await world.passes(10)
        world.manager.fail("connection refused")
        await world.passes(1000)
        assert len(world.orphans) == 1
        assert world.agent.status().managers[0].last_error == "connection refused"
        world.manager.fail("")
        await world.passes(20)
        assert not world.agent.status().managers[0].last_error


async def test_an_instance_manager_that_is_away_is_no_end_of_what_is_wrong_with_its_instances() -> None:
    async with orphan_world() as world:
        with capture_logs() as logs:
            world.manager.put(instance("old-e-0", ""))
            await world.passes(10)
            world.manager.fail("connection refused")
            await world.passes(100)
        watched = [entry["event"] for entry in logs if entry.get("what") == f"identities on {MANAGER}"]
        assert watched == ["trouble"]


async def test_a_source_that_breaks_in_a_way_nobody_foresaw_counts_as_away() -> None:
    async with orphan_world() as world:

        def break_down() -> None:
            raise ZeroDivisionError

        await world.abandon("a-e-0")
        world.owners.before_read = break_down
        with capture_logs():
            await world.passes(100)
        assert not world.orphans
        world.owners.before_read = lambda: None
        await world.passes(100)
        assert len(world.orphans) == 1


async def test_a_watch_that_breaks_in_a_way_nobody_foresaw_is_begun_again() -> None:
    errors = [ZeroDivisionError("odd")]

    async def broken() -> AsyncGenerator[OwnerEvent, None]:
        for error in errors:
            raise error
        yield OwnersListed(())

    async with orphan_world() as world:
        whole = world.owners.watch
        world.owners.watch = broken  # type: ignore[method-assign]
        with capture_logs() as logs:
            world.owners.fail("cut off")
            await world.passes(60)
        assert any(entry["event"] == "watch failed" for entry in logs)
        world.owners.watch = whole  # type: ignore[method-assign]
        world.owners.fail("")
        await world.passes(60)
        assert not world.agent.status().owners_error
        await world.abandon("a-e-0")
        await world.passes(10)
        assert len(world.orphans) == 1


async def test_what_is_wrong_and_could_not_be_written_down_is_written_down_later() -> None:
    async with orphan_world() as world:
        write, errors = world.records.report_conditions, [CannotReadError("busy")]

        async def busy_once(conditions: Mapping[str, str]) -> None:
            if errors:
                raise errors.pop()
            await write(conditions)

        world.records.report_conditions = busy_once  # type: ignore[method-assign]
        world.owners.fail("api server away")
        await world.passes(30)
        assert not errors
        assert "owner source" in world.records.conditions


async def test_a_source_that_does_not_answer_counts_as_away() -> None:
    async with orphan_world() as world:
        await world.stop()
        world.agent = world.new_agent(read_timeout=0.01)
        await world.start()
        await world.abandon("a-e-0")
        world.owners.stuck = True
        await world.passes(30)
        assert "no answer" in world.agent.status().owners_error
        assert not world.orphans
        world.owners.stuck = False
        await world.passes(30)
        assert len(world.orphans) == 1


async def test_a_list_without_any_owner_is_not_believed_at_once() -> None:
    async with orphan_world(confirm_delay=10.0) as world:
        owners, world.owners.owners = world.owners.owners, {}
        world.owners.relist()
        await world.passes(9)
        assert not world.orphans
        assert "no owner at all" in world.agent.status().owners_error
        world.owners.owners = owners
        await world.passes(1000)
        assert not world.orphans
        assert world.agent.counts["declared"] == 0


def listed_again(world: OrphanWorld) -> None:
    world.owners.relist()


def one_comes(world: OrphanWorld) -> None:
    world.owners.put(owner(NEIGHBOUR))


async def test_of_two_lists_without_any_owner_the_second_is_not_believed_before_the_wait_is_over() -> None:
    async with orphan_world(confirm_delay=10.0) as world:
        world.owners.owners = {}
        for _ in range(3):
            world.owners.relist()
            await world.passes(3)
            assert "no owner at all" in world.agent.status().owners_error
        await world.passes(10)
        assert not world.agent.status().owners_error


@pytest.mark.parametrize("sign", [listed_again, one_comes])
async def test_once_there_was_an_owner_a_list_without_any_needs_a_second_one_again(
    sign: Callable[[OrphanWorld], None],
) -> None:
    async with orphan_world(confirm_delay=10.0) as world:
        whole, world.owners.owners = world.owners.owners, {}
        world.owners.relist()
        await world.passes(20)
        assert not world.agent.status().owners_error
        if sign is listed_again:
            world.owners.owners = whole
        sign(world)
        await world.settle()
        world.owners.owners = {}
        world.owners.relist()
        await world.settle()
        assert "no owner at all" in world.agent.status().owners_error


async def test_no_owners_at_all_are_believed_at_the_second_look_but_nothing_is_deleted_for_it() -> None:
    async with orphan_world(confirm_delay=10.0, auto_deletion=True, grace=60.0) as world:
        world.owners.owners = {}
        world.owners.relist()
        await world.passes(60)
        assert [record.instance.name for record in world.orphans] == [NEIGHBOUR]
        await world.passes(1000)
        assert not world.manager.asked
        assert "no owner at all" in world.orphans[0].last_error


async def test_too_many_orphans_at_once_are_not_declared_and_that_is_said() -> None:
    async with orphan_world(max_per_minute=5) as world:
        for number in range(6):
            await world.abandon(f"a{number}-e-0", f"u-{number}")
        with capture_logs() as logs:
            await world.passes(700)
        assert not world.orphans
        assert "6 suspected orphans" in world.agent.status().tripped
        assert any(entry.get("what") == "orphan limit" for entry in logs)
        assert "6 suspected orphans" in world.records.conditions["orphan limit"]
        for number in range(6):
            world.manager.end(f"a{number}-e-0")
        await world.passes(20)
        assert world.records.conditions == {}


async def test_as_many_as_are_allowed_are_declared() -> None:
    async with orphan_world(max_per_minute=5) as world:
        for number in range(5):
            await world.abandon(f"a{number}-e-0", f"u-{number}")
        await world.passes(20)
        assert len(world.orphans) == 5


async def test_more_than_are_allowed_in_a_minute_wait_for_the_next() -> None:
    async with orphan_world(max_per_minute=2) as world:
        await world.abandon("a-e-0", "ua")
        await world.abandon("b-e-0", "ub")
        await world.passes(20)
        assert len(world.orphans) == 2
        await world.abandon("c-e-0", "uc")
        await world.passes(20)
        assert len(world.orphans) == 2
        await world.passes(60)
        assert len(world.orphans) == 3
        assert not world.agent.status().tripped
