"""A delete in v2 hits the instance that was meant, or nothing."""

import asyncio

import pytest

from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.app import spdk as use_cases
from instance_manager.core.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    UpstreamError,
)
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.spdk.process import SpdkProcess
from tests.support.v2_requests import (
    IDENTIFIED,
    KINDS,
    SERVICE_NAMES,
    SPECS,
    create_request,
    delete_request,
    get_request,
)


@pytest.mark.parametrize("cleanup", [True, False])
@pytest.mark.parametrize("kind", IDENTIFIED)
async def test_a_delete_with_the_uuid_of_an_earlier_instance_hits_nothing(
    spdk: SpdkProcess, v2: InstanceV2, kind: str, cleanup: bool
) -> None:
    first = await v2.create(create_request(kind))
    await v2.delete(delete_request(kind))
    second = await v2.create(create_request(kind))
    assert first.status.uuid != second.status.uuid
    await spdk.calls()
    with pytest.raises(NotFoundError, match=second.status.uuid):
        await v2.delete(delete_request(kind, first.status.uuid, cleanup=cleanup))
    assert await spdk.calls() == [f"{SERVICE_NAMES[kind]}Get"]
    assert await v2.get(get_request(kind)) == second


@pytest.mark.parametrize("kind", IDENTIFIED)
async def test_a_delete_with_its_uuid_hits_an_instance(v2: InstanceV2, kind: str) -> None:
    made = await v2.create(create_request(kind))
    deleted = await v2.delete(delete_request(kind, made.status.uuid))
    assert deleted.status.uuid == made.status.uuid
    assert await v2.list() == {}


@pytest.mark.parametrize("cleanup", [True, False])
async def test_a_group_is_not_deleted_by_a_uuid_that_nobody_can_confirm(
    v2: InstanceV2, cleanup: bool
) -> None:
    await v2.create(create_request("shardgroup"))
    with pytest.raises(FailedPreconditionError, match="the SPDK service gives it none"):
        await v2.delete(delete_request("shardgroup", "any", cleanup=cleanup))
    assert set(await v2.list()) == {"v-sg"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_delete_of_what_is_not_there_is_not_found(v2: InstanceV2, kind: str) -> None:
    for uuid in ("", "any"):
        with pytest.raises(UpstreamError) as error:
            await v2.delete(delete_request(kind, uuid))
        assert error.value.code == "NOT_FOUND"


async def test_without_cleanup_engines_stay_and_what_holds_data_is_detached(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    await spdk.calls()
    for kind in KINDS:
        assert (await v2.delete(delete_request(kind, cleanup=False))).deleted
    assert await spdk.tell(calls=True) == [
        [f"{SERVICE_NAMES[kind]}Delete", {"name": SPECS[kind].name}]
        for kind in ("replica", "shard", "shardgroup")
    ]
    assert set(await v2.list()) == {"v-e-0", "v-ef-0"}


async def test_no_instance_that_takes_the_name_meanwhile_is_hit_by_a_delete(v2: InstanceV2) -> None:
    """Deletes of the old UUID race against the re-creation of the name."""
    uuid = (await v2.create(create_request("replica"))).status.uuid
    for _ in range(50):
        stale = [v2.delete(delete_request("replica", uuid)) for _ in range(3)]
        plain = v2.delete(delete_request("replica"))
        answers = await asyncio.gather(
            stale[0], plain, stale[1], v2.create(create_request("replica")), stale[2], return_exceptions=True
        )
        created = answers[3]
        assert isinstance(created, pb.InstanceResponse)
        told = await v2.get(get_request("replica"))
        assert told.status.uuid == created.status.uuid
        uuid = created.status.uuid


async def test_a_create_waits_for_a_delete_whose_caller_has_gone_away(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    first = await v2.create(create_request("replica"))
    await spdk.tell(hang="ReplicaDelete")
    deleting = asyncio.create_task(v2.delete(delete_request("replica", first.status.uuid)))
    await spdk.called("ReplicaDelete")
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    creating = asyncio.create_task(v2.create(create_request("replica")))
    # Time enough for the create, if it did not wait.
    for _ in range(20):
        assert (await v2.get(get_request("replica"))).status.uuid == first.status.uuid
    assert set(await spdk.calls()) == {"ReplicaGet"}
    creating.cancel()


async def test_a_shard_is_created_after_every_shard_whose_delete_is_under_way(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    """Its name is for the SPDK service to choose, so it may be any."""
    first = await v2.create(create_request("shard"))
    await spdk.tell(hang="ShardDelete")
    deleting = asyncio.create_task(v2.delete(delete_request("shard", first.status.uuid)))
    await spdk.called("ShardDelete")
    creating = asyncio.create_task(v2.create(create_request("shard", name="")))
    # Time enough for the create, if it did not wait.
    for _ in range(20):
        assert (await v2.get(get_request("shard"))).status.uuid == first.status.uuid
    assert set(await spdk.calls()) == {"ShardGet"}
    for task in (creating, deleting):
        task.cancel()


async def test_requests_that_are_answered_leave_nothing_behind(v2: InstanceV2) -> None:
    for _ in range(3):
        await v2.create(create_request("replica"))
        await v2.delete(delete_request("replica"))
    assert (len(v2._instances._in_flight), len(v2._instances._turns)) == (0, 0)


async def test_who_waits_too_long_for_another_request_is_told(
    spdk: SpdkProcess, v2: InstanceV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "TURN_PATIENCE", 0.1)
    await spdk.tell(hang="ReplicaCreate")
    first = asyncio.create_task(v2.create(create_request("replica")))
    await spdk.called("ReplicaCreate")
    with pytest.raises(DeadlineExceededError, match="working on another request"):
        await v2.delete(delete_request("replica"))
    first.cancel()
