"""Event streams over a real channel: who does not read harms nobody, and can take up where it was."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client, Stream
from instance_manager.core.change import Change
from instance_manager.core.process import Process
from instance_manager.core.spec import ProcessSpec
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb
from tests.api.test_process_service import Served
from tests.app.test_events import tell
from tests.support.daemon import sleeper
from tests.support.patience import patience

BACKLOG = 200


@pytest.fixture
async def served(tmp_path: Path) -> Served:
    return Served(tmp_path, BACKLOG)


async def created(client: Client, served: Served) -> Process:
    await client.process_create(sleeper("a"))
    return served.supervisor.get("a")


def too_much(served: Served, process: Process) -> None:
    """Let more happen at once than a watcher may leave unread."""
    for _ in range(BACKLOG + 10):
        tell(served.events, process)


async def cut_off(stream: Stream[pb.WatchResponse]) -> list[pb.WatchResponse]:
    """Read what was on its way and return it; the stream has to end with RESOURCE_EXHAUSTED."""
    read: list[pb.WatchResponse] = []

    async def read_all() -> None:
        async for message in stream:
            read.append(message)  # noqa: PERF401 - what was read counts although the stream fails

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await read_all()
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "last revision" in (error.value.details() or "")
    return read


async def test_a_watcher_that_does_not_read_is_cut_off_and_resumes_without_a_gap(served: Served) -> None:
    async with served.serving() as client:
        process = await created(client, served)
        stuck = await client.watch_events().accepted()
        for _ in range(5):
            tell(served.events, process)
            await client.health()
        too_much(served, process)
        assert (served.events.overflows, served.events.subscribers) == (1, 0)
        read = await cut_off(stuck)
        last = read[-1].event.revision
        assert last < served.events.revision
        again = client._watch_events(pb.WatchRequest(since_revision=last), False)
        revisions = []
        async for message in again:
            if message.HasField("event"):
                revisions.append(message.event.revision)
                if message.event.revision == served.events.revision:
                    break
        again.cancel()
    assert revisions == list(range(last + 1, served.events.revision + 1))


class SlowPast:
    """What an earlier daemon has told, fetched when the test says so; implements `interfaces.EventStore`."""

    revision = 2
    epoch = "e"

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def changes(self) -> AsyncIterator[Change]:
        self.asked.set()
        await self.answers.wait()
        process = Process(spec=ProcessSpec(name="old", binary="/bin/r"), uuid="u")
        for revision in (1, 2):
            yield Change(revision, 0.0, process, None)


async def test_what_happens_while_the_past_is_fetched_is_told_once(tmp_path: Path) -> None:
    past = SlowPast()
    served = Served(tmp_path, BACKLOG, past)
    async with served.serving() as client, asyncio.timeout(patience(30)):
        watching = client._watch_events(pb.WatchRequest(since_revision=0), False)
        told = aiter(watching)
        first = asyncio.ensure_future(anext(told))
        await past.asked.wait()
        process = await created(client, served)
        past.answers.set()
        assert (await first).HasField("bookmark")
        meanwhile = served.events.revision
        assert meanwhile > past.revision
        tell(served.events, process)
        revisions = [(await anext(told)).event.revision for _ in range(meanwhile + 1)]
        assert revisions == list(range(1, meanwhile + 2))
        watching.cancel()


async def test_the_past_is_told_from_a_time_or_a_revision_on_or_the_end_of_it(served: Served) -> None:
    async with served.serving() as client:
        process = await created(client, served)
        for _ in range(5):
            served.clock.advance(10)
            tell(served.events, process)
        latest, now = served.events.revision, served.clock.now()

        async def told(**chosen: Any) -> list[int]:
            history = await client.event_history(**chosen)
            assert (history.oldest_revision, history.revision) == (1, latest)
            return [event.revision for event in history.events]

        assert await told() == list(range(1, latest + 1))
        assert await told(since_time=datetime.fromtimestamp(now - 20, UTC)) == [
            latest - 2,
            latest - 1,
            latest,
        ]
        assert await told(since_time=datetime.fromtimestamp(now - 19.5, UTC)) == [latest - 1, latest]
        assert await told(since=latest - 2) == [latest - 1, latest]
        assert await told(limit=1) == [latest]
        assert await told(limit=latest + 1) == await told()
        with pytest.raises(grpc.aio.AioRpcError, match="use 0 for all of them"):
            await told(limit=-1)


async def test_others_are_told_at_once_while_one_does_not_read(served: Served) -> None:
    async with served.serving() as client, served.serving_more() as other:
        process = await created(client, served)
        stuck = await client.watch_events().accepted()
        reading = await other.watch_events().accepted()
        told = aiter(reading)
        assert (await anext(told)).HasField("bookmark")
        for _ in range(2 * BACKLOG):
            tell(served.events, process)
            assert (await anext(told)).event.revision == served.events.revision
        stuck.cancel()
        reading.cancel()
