"""Bounds on what is received and sent: refused beyond, and given back in every case."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.api.interceptors import InterceptorChain, answer_budget, arrivals, request_budget
from instance_manager.api.interceptors.answer_budget import AnswerBudget
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.server import GrpcServer
from instance_manager.api.service import MAX_ENTRIES, MAX_REQUEST_BYTES
from instance_manager.api.size import entries_of
from instance_manager.app.audit import AuditTrail
from instance_manager.app.registry import MAX_LIST_BYTES
from instance_manager.core.addresses import Address
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.spec import MAX_COMMAND_BYTES, ProcessSpec
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.pb.imrpc import instance_pb2, proxy_pb2
from tests.support.engine.served import ProxyClient
from tests.support.http2 import Http2Client
from tests.support.patience import patience
from tests.support.small_service import SmallService
from tests.support.world import World

LOOK, RENAME, FOLLOW = (f"/tests.Small/{name}" for name in ("Look", "Rename", "Follow"))


class Served:
    """The small service on a port."""

    def __init__(self, **options: Any) -> None:
        self.trail = AuditTrail(lambda: 1.0)
        self.chain = InterceptorChain(self.trail, RpcMetrics(), **options)
        self.service = SmallService()
        self.server = GrpcServer([Listener(Offset.PROCESS, (self.service,))], self.chain)
        self.port = self.server.bind(Address("127.0.0.1", 0))[0].port

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )

    def connect(self) -> Http2Client:
        return Http2Client(f"127.0.0.1:{self.port}")

    @property
    def taken(self) -> int:
        return self.chain.budget.taken


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    served = Served(**options)
    await served.server.start()
    try:
        yield served
    finally:
        await served.server.stop(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that gRPC does in threads of its own."""
    async with asyncio.timeout(patience(30)):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def unary(channel: grpc.aio.Channel, path: str, request: bytes = b"") -> Any:
    call: Any = channel.unary_unary(path)
    return await call(request, timeout=patience(30))


def named(name: str) -> bytes:
    return pb.ProcessDeleteRequest(name=name).SerializeToString()


# --- answers ---


def test_a_client_takes_what_it_may_and_no_more_and_others_are_not_concerned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_budget, "MAX_UNSENT_BYTES_PER_CLIENT", 100)
    monkeypatch.setattr(answer_budget, "MAX_UNSENT_BYTES", 150)
    budget = AnswerBudget()
    budget.take("a", 100)
    with pytest.raises(ResourceExhaustedError, match="this client has 100 bytes still to read and 100 is"):
        budget.take("a", 1)
    budget.take("b", 50)
    with pytest.raises(ResourceExhaustedError, match="all clients have 150 bytes still to read and 150 is"):
        budget.take("c", 1)
    budget.give_back("a", 100)
    budget.take("c", 100)
    budget.give_back("b", 50)
    budget.give_back("c", 100)
    assert (budget.taken, dict(budget._clients)) == (0, {})


@pytest.mark.parametrize("name", ["", "missing", "long", "defect"])
async def test_what_an_answer_took_is_given_back_whatever_it_was(name: str) -> None:
    async with serving() as served, served.channel() as channel:
        for path in (LOOK, RENAME):
            for _ in range(3):
                try:
                    await unary(channel, path, named(name))
                except grpc.aio.AioRpcError:
                    assert path == LOOK
        await until(lambda: served.taken == 0)


async def test_an_answer_that_is_not_read_is_counted_until_its_client_goes() -> None:
    async with serving() as served:
        big = b"x" * (1 << 20)
        served.service.answer = big
        with served.connect() as client:
            for _ in range(30):
                client.call(LOOK, named("big"))
            client.send_on(20)
            most = answer_budget.MAX_UNSENT_BYTES_PER_CLIENT
            await until(lambda: served.taken > most - 2 * len(big))
            await until(lambda: bool(client.receive()) or bool(client.codes))
            assert served.taken <= most
            # Another client is served meanwhile.
            async with served.channel() as channel:
                assert await unary(channel, LOOK, named("big")) == big
        await until(lambda: served.taken == 0)


async def test_a_change_is_refused_before_it_is_made_if_its_answer_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_budget, "MAX_UNSENT_BYTES", 1 << 16)
    async with serving() as served, served.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await unary(channel, RENAME, named("a"))
        assert served.service.renamed == []
        await until(lambda: [entry.code for entry in served.trail.entries()] == ["RESOURCE_EXHAUSTED"])


async def test_messages_of_a_stream_are_given_back_when_they_are_sent_and_when_nobody_reads() -> None:
    async with serving() as served:
        async with served.channel() as channel:
            stream: Any = channel.unary_stream(FOLLOW)
            following = stream(b"")
            await following.read()
            await until(lambda: served.taken == 0)
            following.cancel()
        served.service.messages = [b"x" * (1 << 16)] * 40
        with served.connect() as client:
            client.call(FOLLOW, b"")
            client.send_on(20)
            await until(lambda: served.taken == 4 << 16)
        await until(lambda: served.taken == 0)


# --- requests ---


async def test_requests_that_are_half_sent_make_room_for_one_that_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "MAX_ARRIVING", 2)
    monkeypatch.setattr(arrivals, "PATIENCE", 0.2)
    async with serving() as served, served.channel() as channel:
        with served.connect() as slow:
            streams = [slow.call(RENAME, named("slow"), without=1) for _ in range(2)]
            slow.send_on(20)
            await until(lambda: len(served.chain._arrivals) == 2)
            await unary(channel, RENAME, named("whole"))
            assert served.service.renamed == ["whole"]
            async with asyncio.timeout(patience(30)):
                while not slow.codes:
                    await asyncio.to_thread(slow.receive)
            # As many as others need, and the oldest first.
            assert slow.codes == {streams[0]: str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])}
        await until(lambda: len(served.chain._arrivals) == 0)


async def test_requests_that_are_half_sent_are_forgotten_when_their_client_goes() -> None:
    async with serving() as served:
        with served.connect() as slow:
            for _ in range(50):
                slow.call(LOOK, named("slow"), without=1)
            slow.send_on(20)
            await until(lambda: len(served.chain._arrivals) == 50)
        await until(lambda: len(served.chain._arrivals) == 0)


async def test_requests_in_progress_are_bounded_for_each_client_and_small_ones_always_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_budget, "MAX_REQUEST_BYTES_HELD_PER_CLIENT", 25_000)
    monkeypatch.setattr(request_budget, "MAX_REQUEST_BYTES_HELD", 45_000)
    async with serving() as served:
        big = pb.LogRequest(name="x" * 10_000).SerializeToString()
        async with served.channel() as one, served.channel() as two, served.channel() as three:
            following = []
            for channel in (one, one, two, two):
                stream: Any = channel.unary_stream(FOLLOW)
                following.append(stream(big))
                await following[-1].read()
            with pytest.raises(grpc.aio.AioRpcError, match=r"this client has requests of \d+ bytes"):
                await unary(one, LOOK, named("x" * 10_000))
            with pytest.raises(grpc.aio.AioRpcError, match=r"all clients have requests of \d+ bytes"):
                await unary(three, RENAME, named("x" * 10_000))
            for channel in (one, two, three):
                await unary(channel, RENAME, named("x" * 4000))
            assert {entry.code for entry in served.trail.entries()} == {"RESOURCE_EXHAUSTED", "OK"}
            for each in following:
                each.cancel()
            await until(lambda: served.chain.requests.taken == 0)
            await unary(three, RENAME, named("x" * 10_000))
        await until(lambda: served.chain.requests.taken == 0)


@pytest.mark.parametrize("entries", [MAX_ENTRIES, MAX_ENTRIES + 1])
async def test_a_request_has_no_more_entries_than_there_may_be(proxy: ProxyClient, entries: int) -> None:
    which: dict[str, Any] = {"data_engine": "DATA_ENGINE_V2"}
    for method, content in (
        ("SnapshotRemove", {"names": [""] * entries}),
        ("VolumeSnapshot", {"snapshot_volume": {"labels": {f"{each:x}": "" for each in range(entries)}}}),
        ("SnapshotBackup", {"envs": [""] * 96, "labels": {f"{each:x}": "" for each in range(entries - 96)}}),
    ):
        code, text = await proxy.error(method, content | {"proxy_engine_request": which})
        if entries <= MAX_ENTRIES:
            assert code == "UNIMPLEMENTED"
        else:
            assert code == "INVALID_ARGUMENT"
            assert f"with {entries} entries of lists and maps: {MAX_ENTRIES} is the most" in text


@pytest.mark.parametrize(
    ("message", "entries"),
    [
        (pb.ProcessSpec(name="a"), 0),
        (pb.ProcessCreateRequest(spec=pb.ProcessSpec(args=["", ""])), 2),
        (proxy_pb2.EngineSnapshotBackupRequest(envs=["a"], labels={"a": "", "b": ""}), 3),
        (pb.ProcessListResponse(processes={"a": pb.ProcessResponse(spec=pb.ProcessSpec(args=["x"]))}), 2),
    ],
)
def test_entries_are_counted_wherever_they_are(message: Any, entries: int) -> None:
    assert entries_of(message) == entries


async def test_a_call_without_a_request_is_refused() -> None:
    async with serving() as served, served.channel() as channel:
        call: Any = channel.stream_unary(LOOK)

        async def nothing() -> AsyncIterator[bytes]:
            requests: tuple[bytes, ...] = ()
            for each in requests:
                yield each

        with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
            await call(nothing(), timeout=patience(30))


def test_the_largest_request_of_a_longhorn_manager_fits_ten_times_over() -> None:
    """An engine with far more replicas, and longer names and addresses, than there are."""
    address = "tcp://[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:30000"
    replicas = {f"pvc-{number:0200d}": address for number in range(20)}
    spec = instance_pb2.InstanceSpec(name="p" * 251, volume_name="v" * 251, engine_name="e" * 251)
    spec.spdk_instance_spec.replica_address_map.update(replicas)
    v2 = instance_pb2.InstanceCreateRequest(spec=spec)
    words = [word for each in replicas.values() for word in ("--replica", each)]
    v1 = pb.ProcessCreateRequest(
        spec=pb.ProcessSpec(name="p" * 251, binary="/" * 1000, args=[*words, *(["--option=value"] * 100)])
    )
    for request in (v1, v2):
        assert 10 * request.ByteSize() <= MAX_REQUEST_BYTES
    longest = pb.ProcessSpec(name="p" * 251, binary="/b", args=["x" * 128] * 1023)
    assert MAX_COMMAND_BYTES < pb.ProcessCreateRequest(spec=longest).ByteSize() < MAX_REQUEST_BYTES


# --- what else is counted ---


async def test_a_stream_that_has_ended_makes_room_for_another() -> None:
    async with serving(max_streams=1) as served, served.channel() as channel:
        stream: Any = channel.unary_stream(FOLLOW)
        for _ in range(3):
            following = stream(b"")
            await following.read()
            with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
                await stream(b"").read()
            following.cancel()
            await until(lambda: served.chain._streams._open == 0)


async def test_health_and_reflection_streams_count_as_well() -> None:
    async with serving(max_streams=1) as served, served.channel() as channel:
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        first = watch(b"")
        await first.read()
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await watch(b"").read()
        first.cancel()
        await until(lambda: served.chain._streams._open == 0)


async def test_the_length_of_a_list_is_free_again_when_its_processes_are_gone() -> None:
    world = World()
    long = ("x" * 130_000,)
    for turn in range(2):
        names = [f"p{turn}-{number}" for number in range(MAX_LIST_BYTES // 131_000)]
        for name in names:
            world.supervisor.create(ProcessSpec(name, "/bin/r", long))
        with pytest.raises(ResourceExhaustedError, match="clients accept"):
            world.supervisor.create(ProcessSpec("more", "/bin/r", long))
        for name in names:
            process = world.supervisor.get(name)
            world.supervisor.delete(name)
            world.child(process).exit()
            await world.told(process, "deleted")
