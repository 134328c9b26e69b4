"""EventService: nothing is missed, not even when the daemon is killed."""

import asyncio
import os
import random
import signal
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client, Gap, Position
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb
from tests.integration.test_adoption import node
from tests.support.daemon import Daemon, Watch, live, shell, sleeper
from tests.support.node import Node
from tests.support.patience import patience

__all__ = ["node"]

Sized = Callable[[int, int], int]
LIFE = ["starting", "running", "stopping", "stopped", "deleted"]


def state(event: pb.Event) -> str:
    return "deleted" if event.deleted else event.instance.state


def lives(events: list[pb.Event]) -> dict[str, list[str]]:
    """Return the states told about each UUID, in order."""
    told: dict[str, list[str]] = {}
    for event in events:
        told.setdefault(event.instance.uuid, []).append(state(event))
    return told


class Reader:
    """Collects what a stream of events tells, in the background."""

    def __init__(self, client: Client, **options: object) -> None:
        self.events: list[pb.Event] = []
        self.gaps: list[Gap] = []
        self.instances: list[pb.Instance] = []
        self.stream = client.events(**options)  # type: ignore[arg-type]
        self._arrived = asyncio.Condition()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for told in self.stream:
            async with self._arrived:
                match told:
                    case pb.Event():
                        self.events.append(told)
                    case pb.Instance():
                        self.instances.append(told)
                    case Gap():
                        self.gaps.append(told)
                self._arrived.notify_all()

    async def until(self, condition: Callable[[], bool], within: float = 30) -> None:
        async with asyncio.timeout(patience(within)), self._arrived:
            await self._arrived.wait_for(condition)

    async def close(self) -> None:
        self.stream.cancel()
        await self._task


async def test_an_event_tells_what_happened_when_and_why(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("vol-e-1", "exit 3"))
        await watch.state("vol-e-1", "error")
        history = await client.event_history()
    assert [event.revision for event in history.events] == list(range(1, len(history.events) + 1))
    last = history.events[-1]
    assert (last.instance.name, last.instance.type, last.instance.state) == ("vol-e-1", "engine", "error")
    assert last.instance.exit == pb.Exit(status=3)
    assert last.reason == "exit status 3"
    assert last.previous_state in {"starting", "running"}
    times = [event.time.ToNanoseconds() for event in history.events]
    assert times == sorted(times)


@pytest.mark.timeout(600)
async def test_every_transition_is_told_once_and_in_order_to_ten_watchers(
    daemon: Daemon, sized: Sized
) -> None:
    count = sized(40, 1000)
    async with daemon.client() as client, Watch(client) as watch:
        readers = [Reader(client) for _ in range(10)]
        for reader in readers:
            await reader.stream.accepted()
        uuids = []
        for begin in range(0, count, 20):
            names = [f"p{n}" for n in range(begin, begin + 20)]
            uuids += await asyncio.gather(*(live(client, watch, name) for name in names))
        for reader in readers:
            await reader.until(lambda reader=reader: sum(e.deleted for e in reader.events) == count)  # type: ignore[misc]
            assert lives(reader.events) == dict.fromkeys(uuids, LIFE)
            revisions = [event.revision for event in reader.events]
            assert revisions == list(range(revisions[0], revisions[0] + 5 * count))
            await reader.close()


@pytest.mark.parametrize("seed", range(3))
async def test_who_resumes_after_any_revision_gets_exactly_the_rest(daemon: Daemon, seed: int) -> None:
    chance = random.Random(seed)
    async with daemon.client() as client, Watch(client) as watch:
        await asyncio.gather(*(live(client, watch, f"p{n}") for n in range(10)))
        whole = list((await client.event_history()).events)
        for _ in range(10):
            since = chance.randrange(len(whole))
            reader = Reader(client, since=since)
            await reader.until(lambda reader=reader, since=since: len(reader.events) >= len(whole) - since)  # type: ignore[misc]
            assert reader.events == whole[since:]
            await reader.close()


async def test_after_a_snapshot_comes_every_later_change(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        uuids = {}
        for name in ("a", "b"):
            uuids[name] = (await client.process_create(sleeper(name))).status.uuid
            await watch.state(name, "running")
        reader = Reader(client, snapshot=True)
        await reader.until(lambda: len(reader.instances) == 2)
        assert {i.name: (i.uuid, i.state) for i in reader.instances} == {
            name: (uuid, "running") for name, uuid in uuids.items()
        }
        await client.process_delete("a")
        await reader.until(lambda: bool(reader.events) and reader.events[-1].deleted)
        assert lives(reader.events) == {uuids["a"]: LIFE[2:]}
        await reader.close()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"names": ["vol-1-e-0"]}, {"vol-1-e-0"}),
        ({"prefix": "vol-1-"}, {"vol-1-e-0", "vol-1-r-0"}),
        ({"types": ["replica"]}, {"vol-1-r-0", "vol-2-r-0"}),
        ({"prefix": "vol-1-", "types": ["replica"]}, {"vol-1-r-0"}),
    ],
)
async def test_a_filter_lets_through_what_is_wanted(
    daemon: Daemon, wanted: dict[str, object], names: set[str]
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        for name in ("vol-1-e-0", "vol-1-r-0", "vol-2-r-0"):
            await live(client, watch, name)
        history = await client.event_history(**wanted)  # type: ignore[arg-type]
        assert {event.instance.name for event in history.events} == names
        reader = Reader(client, since=0, **wanted)
        await reader.until(lambda: len(reader.events) == len(history.events))
        assert reader.events == list(history.events)
        await reader.close()


async def test_a_watcher_whose_filter_lets_nothing_through_still_learns_how_far_it_is(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        reader = Reader(client, names=["nobody"])
        await reader.stream.accepted()
        for begin in range(0, 25, 5):
            await asyncio.gather(*(live(client, watch, f"p{n}") for n in range(begin, begin + 5)))
        async with asyncio.timeout(patience(20)):
            while reader.stream.position is None or reader.stream.position.revision < 100:
                await client.health()
        assert reader.events == []
        await reader.close()


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (pb.WatchRequest(since_revision=10**6), grpc.StatusCode.OUT_OF_RANGE, "the latest is"),
        (pb.WatchRequest(since_revision=0, epoch="x"), grpc.StatusCode.OUT_OF_RANGE, "another sequence"),
        (pb.WatchRequest(since_revision=-1), grpc.StatusCode.INVALID_ARGUMENT, "0 or more"),
        (pb.WatchRequest(filter=pb.Filter(types=["gate"])), grpc.StatusCode.INVALID_ARGUMENT, "gate"),
    ],
)
async def test_a_watch_that_cannot_be_is_refused_with_the_reason(
    daemon: Daemon, request_: pb.WatchRequest, code: grpc.StatusCode, said: str
) -> None:
    async with daemon.client() as client:
        stream = client._watch_events(request_, False)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in stream:
                pass
    assert error.value.code() is code
    assert said in (error.value.details() or "")


@pytest.mark.timeout(120)
async def test_a_watcher_misses_nothing_while_the_daemon_is_killed_again_and_again(node: Node) -> None:
    """One stream over several daemons: gapless, and every life told from its begin to its end."""
    async with node.client() as watching:
        reader = Reader(watching)
        await reader.stream.accepted()
        uuids = []
        for turn in range(4):
            async with node.client() as client, Watch(client) as watch:
                for name in (f"kept-{turn}", f"gone-{turn}"):
                    uuids.append((await client.process_create(sleeper(name))).status.uuid)
                    await watch.state(name, "running")
                await client.process_delete(f"gone-{turn}")
                os.kill(node.daemon.pid, signal.SIGKILL)
                await node.daemon.ended()
            await node.restart()
        async with node.client() as client:
            for turn in range(4):  # the others are going already
                await client.process_delete(f"kept-{turn}")
            await reader.until(lambda: sum(event.deleted for event in reader.events) == 8)
            assert reader.gaps == []
            assert lives(reader.events) == dict.fromkeys(uuids, LIFE)
            assert [event.revision for event in reader.events] == list(range(1, 41))
            history = await client.event_history()
            assert list(history.events) == reader.events
            assert history.oldest_revision == 1
        await reader.close()


async def test_when_the_memory_is_lost_a_watcher_is_told_so(node: Node) -> None:
    async with node.client() as client, Watch(client) as watch:
        await live(client, watch, "a")
        await client.process_create(sleeper("b"))
        history = await client.event_history()
    await node.kill()
    node.lose_journal()
    await node.restart()
    async with node.client() as client:
        reader = Reader(client, since=Position(history.revision, history.epoch), snapshot=True)
        await reader.until(lambda: bool(reader.instances))
        assert [instance.name for instance in reader.instances] == ["b"]
        # What is lost comes first, so that nobody takes the snapshot for what comes next.
        assert [gap.lost for gap in reader.gaps] == [None]
        stream = client._watch_events(
            pb.WatchRequest(since_revision=history.revision, epoch=history.epoch), False
        )
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in stream:
                pass
        assert error.value.code() is grpc.StatusCode.OUT_OF_RANGE
        await reader.close()
