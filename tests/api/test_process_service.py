"""The service over a real channel, with fakes below the supervisor where a machine cannot be made to fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from instance_manager.api.event_service import EventService
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.process_service import ProcessService
from instance_manager.api.server import GrpcServer
from instance_manager.api.watching import accept, watching
from instance_manager.api.wire import process_spec_from_wire
from instance_manager.app.audit import AuditTrail
from instance_manager.app.events import EventLog
from instance_manager.app.interfaces import EventStore
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Settings, Supervisor
from instance_manager.client import Client
from instance_manager.core.addresses import parse_address
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Process
from instance_manager.core.spec import ProcessSpec
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.app.test_events import tell
from tests.support.daemon import sleeper
from tests.support.fakes import FakeClock, FakeJournal, FakeLogs, FakeReadiness, FakeSpawner
from tests.support.patience import patience


class RecordedMethod:
    """Remembers how each call of a method went."""

    def __init__(self) -> None:
        self.started_calls = 0
        self.codes: list[str] = []
        self.seconds: list[float] = []
        self.over = asyncio.Event()

    def on_started(self) -> None:
        self.started_calls += 1
        self.over.clear()

    def on_ended(self, code: str, seconds: float) -> None:
        self.codes.append(code)
        self.seconds.append(seconds)
        self.over.set()


class RecordedCalls:
    """Remembers how each call went."""

    def __init__(self) -> None:
        self.methods: dict[str, RecordedMethod] = {}
        self.streaming: set[str] = set()

    def method(self, service: str, method: str, *, streaming: bool) -> RecordedMethod:
        if service != ProcessService.descriptor.full_name:
            return RecordedMethod()
        if streaming:
            self.streaming.add(method)
        return self.methods.setdefault(method, RecordedMethod())


class Served:
    """A supervisor over fakes, served on a Unix socket."""

    def __init__(self, folder: Path, backlog: int, store: EventStore | None = None) -> None:
        self.clock = FakeClock()
        self.spawner = FakeSpawner(obeys=["SIGINT"])
        self.logs = FakeLogs()
        self.events = EventLog(self.clock.now, backlog=backlog, store=store)
        numbers = iter(range(10**9))
        self.supervisor = Supervisor(
            Settings(port_range=PortRange(10_000, 10_099)),
            spawner=self.spawner,
            readiness=FakeReadiness(),
            logs=self.logs,
            events=self.events,
            clock=self.clock,
            journal=FakeJournal(),
            new_uuid=lambda: f"uuid-{next(numbers)}",
        )
        service = ProcessService(self.supervisor, Replacer(self.supervisor))
        self.calls = RecordedCalls()
        self.server = GrpcServer(
            [Listener(Offset.PROCESS, (service, EventService(self.supervisor)))],
            InterceptorChain(AuditTrail(self.clock.now), self.calls),
        )
        self.url = f"unix://{folder}/s"

    def serving_more(self) -> Client:
        """Return another connection."""
        return Client(self.url)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Client]:
        self.server.bind(parse_address(self.url))
        await self.server.start()
        try:
            async with Client(self.url) as client:
                yield client
        finally:
            await self.server.stop(0)


@pytest.fixture
async def served(tmp_path: Path) -> Served:
    return Served(tmp_path, backlog=50)


async def test_a_defect_is_internal_with_an_id_that_is_in_the_log_and_the_server_goes_on(
    served: Served,
) -> None:
    served.spawner.failures.append(KeyError("a defect"))
    with capture_logs() as logs:
        async with served.serving() as client:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.process_create(sleeper("a"))
            assert error.value.code() is grpc.StatusCode.INTERNAL
            (told,) = [line for line in logs if line["event"] == "unexpected error in a call"]
            assert told["error_id"] in (error.value.details() or "")
            assert told["method"] == "/ProcessManagerService/ProcessCreate"
            assert await client.health() == "SERVING"


async def test_a_watcher_that_never_reads_is_cut_off_and_a_new_watch_is_in_step(served: Served) -> None:
    async with served.serving() as client:
        await client.process_create(sleeper("a"))
        stuck = await client.process_watch().accepted()
        served_one = served.supervisor.get("a")
        # More than the connection takes on its way, then more than the backlog.
        for _ in range(100):
            for _ in range(10):
                tell(served.events, served_one)
            await client.health()
        for _ in range(100_000):
            tell(served.events, served_one)
        assert served.events.overflows == 1
        assert served.events.subscribers == 0
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in stuck:
                pass
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        again = await client.process_watch().accepted()
        tell(served.events, served_one)
        assert (await anext(aiter(again))).spec.name == "a"
        again.cancel()


async def test_a_watcher_that_is_stuck_in_a_write_is_cut_off_too(served: Served) -> None:
    async with served.serving() as client:
        # Large messages fill what the connection takes without being read.
        await client.process_create(pb.ProcessSpec(name="a", binary="/bin/true", args=["x" * 100_000]))
        stuck = await client.process_watch().accepted()
        process = served.supervisor.get("a")
        while served.events.overflows == 0:
            tell(served.events, process)
            await client.health()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in stuck:
                pass
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class StuckContext:
    """A call whose client never reads: no write ever ends."""

    def __init__(self) -> None:
        self.accepted, self.writing = asyncio.Event(), asyncio.Event()
        self.code: grpc.StatusCode | None = None

    async def send_initial_metadata(self, _: object) -> None:
        self.accepted.set()

    async def write(self, _: object) -> None:
        self.writing.set()
        await asyncio.Event().wait()

    async def abort(self, code: grpc.StatusCode, _: str) -> None:
        self.code = code
        raise grpc.aio.AbortError


async def test_a_watcher_whose_write_never_ends_is_taken_out_of_it() -> None:
    events, context = EventLog(FakeClock().now, backlog=2), StuckContext()
    process = Process(spec=ProcessSpec(name="a", binary="/bin/r"), uuid="u")

    async def watch() -> None:
        async with watching(events, context, "watch again") as changes:  # type: ignore[arg-type]
            await accept(context, changes)  # type: ignore[arg-type]
            async for change in changes:
                await context.write(change)

    task = asyncio.create_task(watch())
    async with asyncio.timeout(patience(30)):
        await context.accepted.wait()
        tell(events, process)
        await context.writing.wait()
    for _ in range(3):
        tell(events, process)
    # Not by a timeout, whose end would take it out of the write as well.
    ended, _ = await asyncio.wait([task], timeout=patience(30))
    assert ended
    with pytest.raises(grpc.aio.AbortError):
        await task
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (events.overflows, events.subscribers) == (1, 0)


async def test_who_is_given_a_name_is_told_once_more_to_watchers_by_name_alone(served: Served) -> None:
    async with served.serving() as client, asyncio.timeout(patience(20)):
        by_name, by_uuid = await client.process_watch().accepted(), await client.watch_events().accepted()
        await client.process_create(sleeper("a"))
        served.events.repeat(served.supervisor.get("a"))
        served.clock.advance()
        told, events = aiter(by_name), aiter(by_uuid)
        assert [(await anext(told)).status.state for _ in range(3)] == ["starting", "starting", "running"]
        assert (await anext(events)).HasField("bookmark")
        assert [(await anext(events)).event.instance.state for _ in range(2)] == ["starting", "running"]
        by_name.cancel()
        by_uuid.cancel()


async def test_watches_that_are_opened_and_cancelled_leave_no_task_and_no_subscriber(served: Served) -> None:
    async with served.serving() as client:
        await client.health()
        before = len(asyncio.all_tasks())
        for _ in range(20):
            streams = [await client.process_watch().accepted() for _ in range(10)]
            for stream in streams:
                stream.cancel()
        async with asyncio.timeout(patience(10)):
            while served.events.subscribers or len(asyncio.all_tasks()) > before:
                await client.health()


async def test_the_list_shows_every_change_although_it_is_kept_serialized(served: Served) -> None:
    async with served.serving() as client:
        assert await client.process_list() == {}
        await client.process_create(sleeper("a"))
        assert (await client.process_list())["a"].status.state == "starting"
        served.clock.advance()
        assert (await client.process_list())["a"].status.state == "running"
        await client.process_create(sleeper("b"))
        served.clock.advance()
        assert set(await client.process_list()) == {"a", "b"}
        await client.process_delete("a")
        await until_gone(client, "a")
        assert set(await client.process_list()) == {"b"}


async def until_gone(client: Client, name: str) -> None:
    async with asyncio.timeout(patience(10)):
        while name in await client.process_list():
            pass


async def test_watchers_are_told_everything_before_the_streams_end(served: Served) -> None:
    async with served.serving() as client:
        await client.process_create(sleeper("a"))
        stream = await client.process_watch().accepted()
        await served.supervisor.shutdown(grace=1)
        served.events.close()
        told = ["deleted" if c.deleted else c.status.state async for c in stream]
        assert told == ["stopping", "stopped", "deleted"]


async def test_a_watch_after_the_end_is_empty(served: Served) -> None:
    async with served.serving() as client:
        served.events.close()
        assert [change async for change in client.process_watch()] == []


async def test_how_each_call_begins_and_ends_is_told(served: Served) -> None:
    async with served.serving() as client:
        await client.process_create(sleeper("a"))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.process_create(sleeper("a"))
        with capture_logs():
            served.spawner.failures.append(KeyError("a defect"))
            with pytest.raises(grpc.aio.AioRpcError):
                await client.process_create(sleeper("b"))
    create = served.calls.methods["ProcessCreate"]
    assert create.started_calls == 4
    assert create.codes == ["OK", "ALREADY_EXISTS", "ALREADY_EXISTS", "INTERNAL"]
    assert all(0 < seconds < 20 for seconds in create.seconds)
    assert served.calls.methods["ProcessGet"].started_calls == 0
    assert served.calls.streaming == {"ProcessLog", "ProcessWatch"}


async def test_a_watch_is_under_way_until_its_caller_goes_away_or_it_is_cut_off(served: Served) -> None:
    watch = served.calls.methods["ProcessWatch"]
    async with served.serving() as client, asyncio.timeout(patience(20)):
        stream = client.process_watch()
        await stream.accepted()
        assert (watch.started_calls, watch.codes) == (1, [])
        stream.cancel()
        await watch.over.wait()
        assert watch.codes == ["CANCELLED"]
        stream = client.process_watch()
        await stream.accepted()
        served.events.close()
        assert [change async for change in stream] == []
        await watch.over.wait()
        assert watch.codes == ["CANCELLED", "OK"]


async def test_a_watch_that_is_cut_off_ends_with_the_code_its_caller_is_told(served: Served) -> None:
    watch = served.calls.methods["ProcessWatch"]
    async with served.serving() as client, asyncio.timeout(patience(20)):
        stream = client.process_watch()
        await stream.accepted()
        process = served.supervisor.create(process_spec_from_wire(pb.ProcessCreateRequest(spec=sleeper("a"))))
        for _ in range(60):  # more than it may have unread, before it can read any
            for change in served.events.prepare(process, None, [False]):
                served.events.publish(change)
        await watch.over.wait()
        assert watch.codes == ["RESOURCE_EXHAUSTED"]
