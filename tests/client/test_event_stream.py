"""A stream of changes goes on after whatever breaks it off, and says what it could not make good."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from instance_manager.client import Client, EventStream, Gap, Position, event_stream
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb
from tests.support.fake_daemon import FakeDaemon, fake_daemon
from tests.support.fake_events import FakeEvents
from tests.support.patience import patience

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def events() -> FakeEvents:
    return FakeEvents()


@pytest.fixture
async def fake(
    events: FakeEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakeDaemon]:
    monkeypatch.setattr(event_stream, "_FIRST_DELAY", 0.01)
    async with fake_daemon(f"unix:{tmp_path}/fake.sock", events.handler) as running:
        yield running


@pytest.fixture
async def client(fake: FakeDaemon) -> AsyncIterator[Client]:
    async with Client(fake.url) as connected:
        yield connected


def in_words(told: Any) -> str:
    match told:
        case pb.Event():
            return f"{told.revision} {told.instance.name} {told.instance.state}"
        case pb.Instance():
            return f"is {told.name} {told.state}"
        case pb.Bookmark():
            return f"all at {told.revision}"
        case Gap():
            return f"gap {told.lost}"
    raise AssertionError(told)


class Reader:
    """Reads a stream a few at a time."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        self._told = aiter(stream)

    async def read(self, count: int) -> list[Any]:
        async with asyncio.timeout(patience(20)):
            return [await anext(self._told) for _ in range(count)]

    async def words(self, count: int) -> list[str]:
        return [in_words(told) for told in await self.read(count)]


@contextlib.contextmanager
def reading(stream: EventStream) -> Iterator[Reader]:
    yield Reader(stream)
    stream.cancel()


@pytest.mark.parametrize("how", [UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, None], ids=str)
async def test_after_a_lost_connection_it_goes_on_after_the_last_change(
    how: grpc.StatusCode | None, client: Client, events: FakeEvents
) -> None:
    events.happen("r0", "running")
    lost: list[str] = []
    with reading(await client.events(on_lost=lost.append).accepted()) as reader:
        events.happen("r1", "starting")
        assert await reader.words(1) == ["2 r1 starting"]
        assert reader.stream.position == Position(2, "e1")
        for revision in (3, 5):
            events.cut(how)
            events.happen("r1", "running")
            events.happen("r1", "stopping")
            assert await reader.words(2) == [f"{revision} r1 running", f"{revision + 1} r1 stopping"]
    assert lost == ["the instance manager is ending" if how is None else "as the test says"] * 2
    assert [(request.since_revision, request.epoch) for request in events.requests] == [
        *((0, ""), (2, "e1"), (4, "e1"))
    ]


async def test_a_daemon_that_comes_back_is_found_again(
    fake: FakeDaemon, client: Client, events: FakeEvents
) -> None:
    gone = asyncio.Event()
    with reading(await client.events(on_lost=lambda _: gone.set()).accepted()) as reader:
        events.happen("r1", "starting")
        await reader.read(1)
        following = asyncio.create_task(reader.words(1))
        await fake.stop()
        await gone.wait()
        events.happen("r1", "running")
        await fake.start()
        assert await following == ["2 r1 running"]


async def test_a_bookmark_moves_the_position_past_what_the_filter_keeps_back(
    client: Client, events: FakeEvents
) -> None:
    with reading(await client.events(names=["r1"]).accepted()) as reader:
        events.happen("r1", "starting")
        await reader.read(1)
        events.events.append(pb.Event(revision=9))
        events.bookmark()
        events.cut(UNAVAILABLE)
        events.happen("r1", "running")
        assert await reader.words(1) == ["10 r1 running"]
    assert events.requests[-1].since_revision == 9
    assert [list(request.filter.names) for request in events.requests] == [["r1"], ["r1"]]


async def test_what_is_no_longer_remembered_is_told_as_a_gap_and_the_rest_follows(
    client: Client, events: FakeEvents
) -> None:
    with reading(await client.events().accepted()) as reader:
        events.happen("r1", "starting")
        await reader.read(1)
        events.cut(UNAVAILABLE)
        events.happen("r1", "running")
        events.happen("r1", "stopping")
        events.forget()
        events.happen("r1", "stopped")
        gap, event = await reader.read(2)
        assert gap == Gap(Position(1, "e1"), Position(3, "e1"), "cannot go back so far")
        assert gap.lost == 2
        assert in_words(event) == "4 r1 stopped"


async def test_a_memory_that_was_lost_is_a_gap_of_unknown_size_and_the_new_one_is_told_whole(
    client: Client, events: FakeEvents
) -> None:
    with reading(await client.events().accepted()) as reader:
        for state in ("starting", "running"):
            events.happen("r1", state)
        await reader.read(2)
        events.cut(UNAVAILABLE)
        events.begin_again("e2")
        for name in ("r2", "r3", "r4"):
            events.happen(name, "running")
        assert await reader.words(4) == ["gap None", "1 r2 running", "2 r3 running", "3 r4 running"]
        assert reader.stream.position == Position(3, "e2")


async def test_a_position_kept_from_an_earlier_stream_is_gone_on_from(
    client: Client, events: FakeEvents
) -> None:
    for state in ("starting", "running", "stopping"):
        events.happen("r1", state)
    with reading(client.events(since=1)) as reader:
        assert await reader.words(2) == ["2 r1 running", "3 r1 stopping"]
    with reading(client.events(since=Position(2, "e1"))) as reader:
        assert await reader.words(1) == ["3 r1 stopping"]
    with reading(client.events(since=Position(2, "e0"))) as reader:
        assert await reader.words(2) == ["gap None", "1 r1 starting"]
    with reading(client.events(since=Position(7, "e1"))) as reader:
        assert await reader.words(1) == ["gap 0"]
        events.happen("r1", "stopped")
        assert await reader.words(1) == ["4 r1 stopped"]


async def test_a_snapshot_comes_once_and_again_only_after_a_gap(client: Client, events: FakeEvents) -> None:
    events.happen("r1", "running")
    events.happen("r2", "running")
    with reading(client.events(snapshot=True)) as reader:
        assert await reader.words(3) == ["is r1 running", "is r2 running", "all at 2"]
        events.cut(UNAVAILABLE)
        events.happen("r1", "stopping")
        assert await reader.words(1) == ["3 r1 stopping"]
        events.cut(UNAVAILABLE)
        events.happen("r1", "stopped", deleted=True)
        events.forget()
        gap, first = await reader.read(2)
        assert gap == Gap(
            Position(3, "e1"), None, "the instance manager does not remember the changes any more"
        )
        assert in_words(first) == "is r2 running"
        assert reader.stream.position is None
        assert await reader.words(1) == ["all at 4"]


async def test_a_snapshot_that_breaks_off_is_told_again_from_the_start(
    client: Client, events: FakeEvents
) -> None:
    events.happen("r1", "running")
    events.happen("r2", "running")
    events.cut_snapshot = True
    with reading(client.events(snapshot=True)) as reader:
        assert await reader.words(1) == ["is r1 running"]
        assert reader.stream.position is None
        events.cut_snapshot = False
        assert await reader.words(4) == ["gap None", "is r1 running", "is r2 running", "all at 2"]


async def test_an_empty_snapshot_after_a_gap_says_so_too(client: Client) -> None:
    with reading(client.events(snapshot=True, since=Position(3, "e0"))) as reader:
        assert await reader.words(2) == ["gap None", "all at 0"]


async def test_a_daemon_out_of_reach_is_an_error_before_anything_was_told(tmp_path: Path) -> None:
    async with Client(f"unix:{tmp_path}/none.sock") as client:
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await Reader(client.events()).read(1)


async def test_what_no_second_try_can_mend_is_an_error(client: Client, events: FakeEvents) -> None:
    with reading(client.events(snapshot=True)) as reader:
        await reader.read(1)
        events.refusal = grpc.StatusCode.PERMISSION_DENIED
        events.cut(UNAVAILABLE)
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await reader.read(1)


async def test_a_cancelled_stream_ends_the_iteration_also_between_two_connections(
    fake: FakeDaemon, client: Client, events: FakeEvents
) -> None:
    gone = asyncio.Event()

    async def all_of(stream: EventStream) -> list[str]:
        return [in_words(told) async for told in stream]

    streams = [await client.events(on_lost=lambda _: gone.set()).accepted() for _ in range(2)]
    tasks = [asyncio.create_task(all_of(stream)) for stream in streams]
    events.happen("r1", "starting")
    while not all(stream.position == Position(1, "e1") for stream in streams):
        await client.event_history()
    streams[0].cancel()
    assert await asyncio.wait_for(tasks[0], patience(20)) == ["1 r1 starting"]
    await fake.stop()
    await gone.wait()
    streams[1].cancel()
    assert await asyncio.wait_for(tasks[1], patience(20)) == ["1 r1 starting"]


async def test_a_task_that_reads_can_be_cancelled(client: Client) -> None:
    stream = await client.events().accepted()
    task = asyncio.create_task(Reader(stream).read(1))
    await client.event_history()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
