"""What a person does about orphans, in a world where everything changes at the worst moment."""

from dataclasses import replace

import pytest

from instance_manager.orphans import manual
from instance_manager.orphans.model import (
    ObservedInstance,
    Orphan,
    Owner,
    OwnerKind,
    Resolution,
    Unreadable,
    Verdict,
)
from instance_manager.orphans.verification import Read
from tests.support.fake_orphans import FakeManager, MemoryOwners, MemoryRecords

R1 = ObservedInstance("r1", "u1", "replica", "running")
OWNER = Owner(
    "r1",
    OwnerKind.REPLICA,
    owner_id="node-1",
    desired_state="running",
    current_state="running",
    instance_manager="im-1",
)
OTHER = replace(OWNER, name="other")


def now() -> float:
    return 200.0


class World:
    def __init__(self) -> None:
        self.owners = MemoryOwners(OTHER)
        self.manager = FakeManager("im-1", R1)
        self.records = MemoryRecords()
        self.record = Orphan(R1, "im-1", 100.0, "the instance has no owner")
        self.records.open[self.record.name] = self.record

    async def delete(self) -> manual.Deletion:
        done = await manual.delete(
            self.record, "root", manager=self.manager, owners=self.owners, records=self.records, now=now
        )
        assert done is not None
        return done

    @property
    def kept(self) -> Orphan:
        return self.records.open[self.record.name]


@pytest.fixture
def world() -> World:
    return World()


# --- explain ---


async def test_an_orphan_is_explained_by_reads_of_instance_owner_all_owners_and_instance(
    world: World,
) -> None:
    (explanation,) = await manual.explain("r1", world.manager, world.owners)
    assert [reading.what for reading in explanation.readings] == [
        Read.INSTANCE,
        Read.OWNER,
        Read.ALL_OWNERS,
        Read.INSTANCE,
    ]
    assert [reading.answer for reading in explanation.readings] == [R1, None, (OTHER,), R1]
    assert explanation.judgement.is_orphan


async def test_an_owned_instance_needs_no_more_than_its_owner(world: World) -> None:
    world.owners.put(OWNER)
    (explanation,) = await manual.explain("r1", world.manager, world.owners)
    assert [reading.answer for reading in explanation.readings] == [R1, OWNER]
    assert explanation.judgement.verdict is Verdict.OWNED


async def test_an_instance_that_is_deleted_between_the_reads_is_no_orphan(world: World) -> None:
    def delete_it() -> None:
        world.manager.instances.pop("r1", None)

    world.owners.before_read = delete_it
    (explanation,) = await manual.explain("r1", world.manager, world.owners)
    assert explanation.judgement.verdict is Verdict.IN_TRANSITION


async def test_what_is_not_there_is_not_explained(world: World) -> None:
    assert await manual.explain("r2", world.manager, world.owners) == []


async def test_a_source_that_is_away_is_part_of_the_explanation(world: World) -> None:
    world.owners.fail("half of it is missing")
    (explanation,) = await manual.explain("r1", world.manager, world.owners)
    assert explanation.readings[-1].answer == Unreadable("half of it is missing")
    assert explanation.judgement.verdict is Verdict.UNKNOWN
    world.manager.fail("no route")
    (explanation,) = await manual.explain("r1", world.manager, world.owners)
    assert (explanation.judgement.verdict, explanation.judgement.reason) == (Verdict.UNKNOWN, "no route")


# --- delete ---


async def test_an_orphan_is_deleted_with_its_uuid_and_its_record_waits_for_its_end(world: World) -> None:
    done = await world.delete()
    assert done.accepted
    assert world.manager.asked == [("r1", "u1")]
    assert world.kept == replace(world.record, requested_by="root", requested_at=200.0, deleted_by="root")
    world.manager.end("r1")
    done = await world.delete()
    assert (done.accepted, done.record.resolution) == (True, Resolution.DELETED)
    assert world.manager.asked == [("r1", "u1")]


async def test_a_name_that_has_gone_to_another_uuid_is_not_touched(world: World) -> None:
    world.manager.put(replace(R1, uuid="u2"))
    done = await world.delete()
    assert (done.accepted, done.record.resolution) == (False, Resolution.REPLACED)
    assert world.manager.asked == []


async def test_a_name_that_changes_hands_at_the_last_moment_is_not_touched(world: World) -> None:
    def recreate() -> None:
        world.manager.instances["r1"] = replace(R1, uuid="u2")

    world.owners.before_read = recreate
    done = await world.delete()
    assert not done.accepted
    assert world.manager.deleted == []
    assert world.kept.last_error == "no instance has this name and UUID any more"


async def test_an_owner_that_is_back_ends_the_record(world: World) -> None:
    world.owners.put(OWNER)
    done = await world.delete()
    assert (done.accepted, done.record.resolution) == (False, Resolution.OWNED)
    assert world.manager.asked == []
    assert world.records.open == {}


async def test_an_owner_in_transition_keeps_the_wish_for_later(world: World) -> None:
    world.owners.put(replace(OWNER, current_state="starting", instance_manager="im-2"))
    done = await world.delete()
    assert not done.accepted
    assert world.manager.asked == []
    assert world.kept.requested_by == "root"
    assert world.kept.last_error == "not deleted: its owner is starting and wanted running"


@pytest.mark.parametrize("away", ["owners", "manager"])
async def test_what_cannot_be_read_keeps_the_wish_for_later(world: World, away: str) -> None:
    (world.owners if away == "owners" else world.manager).fail("away")
    done = await world.delete()
    assert not done.accepted
    assert world.manager.asked == []
    assert world.kept.requested_by == "root"
    assert "away" in world.kept.last_error


async def test_a_refused_order_keeps_the_wish_and_counts(world: World) -> None:
    world.manager.refusal = "busy"
    for attempts in (1, 2):
        done = await world.delete()
        assert (done.accepted, world.kept.attempts, world.kept.last_error) == (False, attempts, "busy")
    world.manager.refusal = ""
    assert (await world.delete()).accepted
    assert world.kept.last_error == ""


async def test_a_second_delete_does_not_order_again(world: World) -> None:
    await world.delete()
    done = await world.delete()
    assert done.accepted
    assert world.manager.asked == [("r1", "u1")]


async def test_a_record_that_has_ended_deletes_nothing(world: World) -> None:
    world.records.open.clear()
    assert (
        await manual.delete(
            world.record, "root", manager=world.manager, owners=world.owners, records=world.records, now=now
        )
        is None
    )
    assert world.manager.asked == []


async def test_looking_again_changes_nothing(world: World) -> None:
    explanation = await manual.verify_record(world.record, world.manager, world.owners)
    assert explanation.judgement.is_orphan
    assert world.kept == world.record
    assert world.manager.asked == []


async def test_a_record_that_the_agent_ends_during_the_order_stays_ended(world: World) -> None:
    class Quick(FakeManager):
        async def delete(self, seen: ObservedInstance) -> bool:
            await world.records.remove(world.kept.close(Resolution.DELETED, 201.0, "deleted by root"))
            return await super().delete(seen)

    world.manager = Quick("im-1", R1)
    done = await world.delete()
    assert done.accepted
    assert world.records.open == {}
    assert [record.resolution for record in world.records.history] == [Resolution.DELETED]


async def test_a_source_without_any_owner_is_left_to_the_second_look_of_the_agent(world: World) -> None:
    world.owners.owners.clear()
    done = await world.delete()
    assert not done.accepted
    assert world.manager.asked == []
    assert world.kept.requested_by == "root"
    assert "no owner at all" in world.kept.last_error
