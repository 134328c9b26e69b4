"""An SPDK service that fails, hangs or is away."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.interceptors.errors import status_of
from instance_manager.app import spdk as use_cases
from instance_manager.core.errors import (
    FailedPreconditionError,
    InstanceManagerError,
    ResourceExhaustedError,
    UpstreamError,
)
from instance_manager.core.instance import InstanceType
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess
from tests.support.v2_requests import KINDS, WITHIN, create_request, delete_request, get_request


@pytest.mark.parametrize(
    "code", ["INTERNAL", "ABORTED", "CANCELLED", "UNKNOWN", "PERMISSION_DENIED", "DATA_LOSS"]
)
async def test_every_code_of_the_service_reaches_the_caller(
    spdk: SpdkProcess, v2: InstanceV2, code: str
) -> None:
    await spdk.tell(fail="EngineGet", code=code, message="bdev trouble")
    with pytest.raises(
        InstanceManagerError, match=f"the SPDK service at {spdk.address} says: bdev trouble"
    ) as error:
        await v2.get(get_request("engine"))
    assert status_of(error.value).name == code


async def test_without_the_service_all_but_the_list_is_unavailable_at_once(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    await spdk.kill()
    begin = time.monotonic()
    for kind in KINDS:
        for call in (
            v2.create(create_request(kind)),
            v2.get(get_request(kind)),
            v2.delete(delete_request(kind, "u")),
        ):
            with pytest.raises(UpstreamError) as error:
                await call
            assert error.value.code == "UNAVAILABLE"
    assert await v2.list() == {}
    assert time.monotonic() - begin < patience(10)


async def test_while_the_service_is_away_instances_are_listed_as_they_were_known_last(
    spdk: SpdkProcess, v2: InstanceV2
) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    await v2.delete(delete_request("replica"))
    before = await v2.list()
    # Made after the last list, so that only the answer to its creation tells of it.
    before["v-r-0"] = await v2.create(create_request("replica"))
    await spdk.kill()
    away = await v2.list()
    assert set(away) == set(before)
    for name, instance in away.items():
        assert instance.status.state == before[name].status.state == "running"
        assert instance.status.uuid == before[name].status.uuid
        assert instance.status.error_msg.startswith("last known state: ")
        assert "is unavailable" in instance.status.error_msg
    await spdk.start()
    async with asyncio.timeout(WITHIN):
        while any(each.status.error_msg for each in (await v2.list()).values()):
            pass
    assert await v2.list() == before


async def test_a_list_does_not_wait_long_for_a_service_that_hangs(
    spdk: SpdkProcess, v2: InstanceV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "LIST_PATIENCE", 0.5)
    monkeypatch.setattr(use_cases, "LIST_PATIENCE_AFTER_ERROR", 0.1)
    await v2.create(create_request("shard"))
    await spdk.tell(hang="*")
    for told in ("0.5 s", "0.1 s"):
        (instance,) = (await v2.list()).values()
        assert told in instance.status.error_msg
    await spdk.tell(work="*")
    monkeypatch.setattr(use_cases, "LIST_PATIENCE_AFTER_ERROR", WITHIN)
    (instance,) = (await v2.list()).values()
    assert instance.status.error_msg == ""


async def test_trouble_with_one_type_leaves_the_others_as_they_are(spdk: SpdkProcess, v2: InstanceV2) -> None:
    for kind in KINDS:
        await v2.create(create_request(kind))
    await spdk.tell(fail="ReplicaList", code="INTERNAL")
    await spdk.tell(set="Engine", name="v-e-0", fields={"state": "error", "error_msg": "bdev gone"})
    listed = await v2.list()
    assert {name for name, each in listed.items() if each.status.error_msg.startswith("last known")} == {
        "v-r-0"
    }
    assert listed["v-e-0"].status.error_msg == "bdev gone"


async def test_a_service_that_is_older_than_a_type_has_none_of_it(spdk: SpdkProcess, v2: InstanceV2) -> None:
    await v2.create(create_request("engine"))
    for prefix in ("EngineFrontend", "Shard", "ShardGroup"):
        await spdk.tell(fail=f"{prefix}List", code="UNIMPLEMENTED")
    with capture_logs() as logs:
        (instance,) = (await v2.list()).values()
    assert instance.status.error_msg == ""
    assert [line for line in logs if line["log_level"] != "debug"] == [], "it is no trouble"


@pytest.mark.parametrize("kind", InstanceType)
async def test_where_v2_is_switched_off_a_request_tells_how_to_switch_it_on(kind: InstanceType) -> None:
    off = InstanceV2(None)
    for call in (
        off.create(create_request(kind)),
        off.get(get_request(kind)),
        off.delete(delete_request(kind)),
    ):
        with pytest.raises(FailedPreconditionError, match="--spdk-enabled"):
            await call
    assert await off.list() == {}


async def test_what_the_service_works_on_is_bounded_though_its_callers_have_gone(
    spdk: SpdkProcess, v2: InstanceV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "MOST_IN_PROGRESS", 2)
    await spdk.tell(hang="ReplicaDelete")
    calls = []
    for number in range(2):
        request = delete_request("replica")
        request.name = f"r{number}"
        calls.append(asyncio.create_task(v2.delete(request)))
        async with asyncio.timeout(WITHIN):
            while len(await spdk.tell(pending=True)) <= number:
                pass
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    with pytest.raises(ResourceExhaustedError, match="is working on 2 instances"):
        await v2.create(create_request("engine"))
    await v2.list()
