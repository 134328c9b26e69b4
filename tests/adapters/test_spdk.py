"""The connection to an SPDK service that really listens, fails, hangs and comes back."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.adapters.spdk import SpdkChannel, SpdkService, SpdkWatch, Timeouts
from instance_manager.core.errors import UpstreamError
from instance_manager.core.instance import InstanceType
from instance_manager.core.spdk import ShardGroupSpec, SpdkSpec
from instance_manager.platform.background import Background
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.state import TYPES

WITHIN = patience(30.0)
SPECS = {
    InstanceType.ENGINE: SpdkSpec(type=InstanceType.ENGINE, name="v-e-0", volume_name="v"),
    InstanceType.ENGINE_FRONTEND: SpdkSpec(type=InstanceType.ENGINE_FRONTEND, name="v-ef-0", volume_name="v"),
    InstanceType.REPLICA: SpdkSpec(type=InstanceType.REPLICA, name="v-r-0", disk_name="d", port_count=3),
    InstanceType.SHARD: SpdkSpec(
        type=InstanceType.SHARD, name="v-2", volume_name="v", slot_index=2, lvs_name="d"
    ),
    InstanceType.SHARD_GROUP: SpdkSpec(
        type=InstanceType.SHARD_GROUP, name="v-sg", volume_name="v", shard_group=ShardGroupSpec(2, 1, 64)
    ),
}


class Pings:
    """Counts pings and lets a test wait for them."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived = asyncio.Event()

    def ping(self) -> None:
        self.count += 1
        self._arrived.set()

    async def more(self, than: int) -> None:
        async with asyncio.timeout(WITHIN):
            while self.count <= than:
                self._arrived.clear()
                await self._arrived.wait()


@pytest.fixture
async def channel(spdk: SpdkProcess) -> AsyncIterator[SpdkChannel]:
    channel = SpdkChannel(spdk.address)
    yield channel
    await channel.close()


@pytest.fixture
async def service(channel: SpdkChannel) -> SpdkService:
    return SpdkService(channel, Timeouts(read=WITHIN, change=WITHIN))


@pytest.fixture
async def pings(channel: SpdkChannel) -> AsyncIterator[Pings]:
    """Pings of a watch whose five streams are open."""
    pings = Pings()
    watch = SpdkWatch(channel, pings.ping, Background())
    watch.open()
    await pings.more(len(InstanceType) - 1)
    yield pings
    await watch.close()


async def comes_back(service: SpdkService) -> None:
    """Call, as often as it takes, until the service answers."""
    async with asyncio.timeout(WITHIN):
        while True:
            with contextlib.suppress(UpstreamError):
                await service.log_get_level()
                return


@pytest.mark.parametrize("kind", InstanceType)
async def test_each_type_is_created_told_listed_and_deleted(service: SpdkService, kind: InstanceType) -> None:
    made = await service.create(SPECS[kind])
    assert (made.type, made.name, made.state) == (kind, SPECS[kind].name, "running")
    assert await service.get(kind, made.name) == made
    assert list(await service.list(kind, WITHIN)) == [made]
    for other in set(InstanceType) - {kind}:
        assert list(await service.list(other, WITHIN)) == []
    await service.delete(kind, made.name, cleanup_required=True)
    with pytest.raises(UpstreamError) as error:
        await service.get(kind, made.name)
    assert error.value.code == "NOT_FOUND"


async def test_only_a_shard_group_has_no_uuid_of_its_own(service: SpdkService) -> None:
    made = {kind: await service.create(spec) for kind, spec in SPECS.items()}
    assert {kind for kind, instance in made.items() if not instance.uuid} == {InstanceType.SHARD_GROUP}


@pytest.mark.parametrize(
    ("slot", "state"),
    [
        ("EC_SLOT_STATE_NORMAL", "running"),
        ("EC_SLOT_STATE_REPLACING", "running"),
        ("EC_SLOT_STATE_FAILED", "error"),
        (9, "error"),
    ],
)
async def test_the_state_of_a_slot_becomes_that_of_an_instance(
    spdk: SpdkProcess, service: SpdkService, slot: str | int, state: str
) -> None:
    made = await service.create(SPECS[InstanceType.SHARD])
    await spdk.tell(set="Shard", name=made.name, fields={"state": slot})
    told = await service.get(InstanceType.SHARD, made.name)
    assert told.state == state
    assert ("unknown state 9" in told.error_msg) == (slot == 9)


@pytest.mark.parametrize(
    "code", ["INTERNAL", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED"]
)
async def test_an_error_keeps_its_code_and_says_where_it_comes_from(
    spdk: SpdkProcess, service: SpdkService, code: str
) -> None:
    await spdk.tell(fail="ReplicaCreate", code=code, message="no such bdev")
    with pytest.raises(UpstreamError) as error:
        await service.create(SPECS[InstanceType.REPLICA])
    assert error.value.code == code
    assert str(error.value) == (
        f"cannot create the replica 'v-r-0': the SPDK service at {spdk.address} says: no such bdev"
    )


async def test_a_service_that_is_away_is_unavailable_at_once_and_found_again(
    spdk: SpdkProcess, service: SpdkService
) -> None:
    await service.create(SPECS[InstanceType.ENGINE])
    await spdk.kill()
    begin = time.monotonic()
    for _ in range(50):
        with pytest.raises(UpstreamError) as error:
            await service.get(InstanceType.ENGINE, "v-e-0")
        assert error.value.code == "UNAVAILABLE"
        assert f"the SPDK service at {spdk.address} is unavailable" in str(error.value)
        assert "--spdk-service-address" in str(error.value)
    assert time.monotonic() - begin < patience(10)
    await spdk.start()
    # How soon, the next test tells.
    await comes_back(service)
    assert (await service.get(InstanceType.ENGINE, "v-e-0")).name == "v-e-0"


async def test_a_service_that_is_away_for_long_is_still_looked_for_often() -> None:
    attempts = asyncio.Semaphore(0)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.release()
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    channel = SpdkChannel(f"{host}:{port}")
    try:
        with pytest.raises(UpstreamError):
            await SpdkService(channel).log_get_level()
        # If the pauses between them grew on, so many would take half a minute.
        async with asyncio.timeout(WITHIN / 2):
            for _ in range(12):
                await attempts.acquire()
    finally:
        await channel.close()
        listener.close()
        await listener.wait_closed()


@pytest.fixture
async def babbler() -> AsyncIterator[str]:
    """The address of a service that answers every call with bytes that are no message."""

    class Babble(grpc.GenericRpcHandler):
        def service(self, _: Any) -> Any:
            async def answer(_: bytes, __: Any) -> bytes:
                return b"\xff"

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Babble()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_answer_that_cannot_be_read_is_an_error_of_the_service(babbler: str) -> None:
    channel = SpdkChannel(babbler)
    with pytest.raises(UpstreamError, match="answers with what is no EngineListResponse") as error:
        await SpdkService(channel).list(InstanceType.ENGINE, WITHIN)
    assert error.value.code == "INTERNAL"
    await channel.close()


async def test_a_service_that_hangs_costs_a_caller_its_timeout(
    spdk: SpdkProcess, channel: SpdkChannel, service: SpdkService
) -> None:
    await service.create(SPECS[InstanceType.ENGINE])
    hasty = SpdkService(channel, Timeouts(read=0.2, change=0.3))
    await spdk.tell(hang="*")
    with pytest.raises(UpstreamError) as error:
        await hasty.get(InstanceType.ENGINE, "v-e-0")
    assert error.value.code == "DEADLINE_EXCEEDED"
    assert "did not answer within 0.2 s" in str(error.value)
    with pytest.raises(UpstreamError) as error:
        await hasty.delete(InstanceType.ENGINE, "v-e-0", cleanup_required=True)
    assert "did not answer within 0.3 s" in str(error.value)
    await spdk.tell(work="*")
    assert (await service.get(InstanceType.ENGINE, "v-e-0")).state == "running"


async def test_a_frozen_service_costs_a_caller_its_timeout_too(
    spdk: SpdkProcess, channel: SpdkChannel
) -> None:
    await SpdkService(channel).log_get_level()
    spdk.freeze()
    with pytest.raises(UpstreamError) as error:
        await SpdkService(channel, Timeouts(read=0.2)).log_get_level()
    assert error.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("kind", InstanceType)
async def test_a_change_of_each_type_is_a_ping(
    service: SpdkService, pings: Pings, kind: InstanceType
) -> None:
    before = pings.count
    await service.create(SPECS[kind])
    await pings.more(before)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "OK"])
async def test_a_stream_that_breaks_is_opened_again_and_both_are_pings(
    spdk: SpdkProcess, service: SpdkService, pings: Pings, code: str
) -> None:
    before = pings.count
    await spdk.tell(drop="Replica", code=code)
    # One that the service still sends, one for the break, one for the new stream.
    await pings.more(before + 2)
    before = pings.count
    await service.create(SPECS[InstanceType.REPLICA])
    await pings.more(before)


async def test_streams_are_opened_again_after_the_service_was_away(
    spdk: SpdkProcess, service: SpdkService, pings: Pings
) -> None:
    before = pings.count
    await spdk.kill()
    await pings.more(before + len(InstanceType) - 1)
    before = pings.count
    await spdk.start()
    await pings.more(before + len(InstanceType) - 1)
    assert await spdk.tell(watches=True) == dict.fromkeys(TYPES, 1) | {"BackingImage": 0}
    before = pings.count
    await service.create(SPECS[InstanceType.SHARD])
    await pings.more(before)


async def test_streams_that_keep_failing_are_tried_less_and_less_often(
    spdk: SpdkProcess, channel: SpdkChannel
) -> None:
    await spdk.tell(fail="EngineWatch", code="INTERNAL")
    watch = SpdkWatch(channel, lambda: None, Background())
    begun = time.monotonic()
    watch.open()
    for _ in range(5):
        await spdk.called("EngineWatch")
    took = time.monotonic() - begun
    await watch.close()
    assert took >= (0.1 + 0.2 + 0.4 + 0.8) / 2  # each delay is shortened to its half at most


async def test_a_stream_that_the_service_does_not_have_is_hardly_ever_asked_for(
    spdk: SpdkProcess, channel: SpdkChannel
) -> None:
    await spdk.tell(fail="EngineWatch", code="INTERNAL")
    await spdk.tell(fail="ShardWatch", code="UNIMPLEMENTED")
    watch = SpdkWatch(channel, lambda: None, Background())
    watch.open()
    calls: list[str] = []
    async with asyncio.timeout(WITHIN / 2):  # half the pause of a stream that is not there
        while calls.count("EngineWatch") < 5:
            calls += await spdk.calls(watches=True)
    await watch.close()
    assert calls.count("ShardWatch") == 1


async def test_a_stream_is_opened_again_after_an_error_that_nobody_foresaw(
    channel: SpdkChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [LookupError("odd") for _ in InstanceType]
    background, opened = Background(first_delay=0.01), Pings()
    stream = channel.stream

    def failing(*call: Any) -> Any:
        if errors:
            raise errors.pop()
        return stream(*call)

    monkeypatch.setattr(channel, "stream", failing)
    watch = SpdkWatch(channel, opened.ping, background)
    watch.open()
    await opened.more(len(InstanceType) - 1)
    await watch.close()
    assert background.works["spdk-watch"].failures == len(InstanceType)


async def test_a_closed_watch_leaves_no_stream_behind(spdk: SpdkProcess, channel: SpdkChannel) -> None:
    opened = Pings()
    watch = SpdkWatch(channel, opened.ping, Background())
    watch.open()
    await opened.more(len(InstanceType) - 1)
    await watch.close()
    async with asyncio.timeout(WITHIN):
        while any((await spdk.tell(watches=True)).values()):
            pass
