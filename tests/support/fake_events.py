"""An EventService that remembers and forgets what a test says."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from instance_manager.pb.instance_manager.v1 import events_pb2 as pb


class FakeEvents:
    """Changes of instances; everyone who watches is told, or cut off."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.events: list[pb.Event] = []
        self.forgotten = 0
        """The last revision that is not remembered any more."""
        self.instances: dict[str, pb.Instance] = {}
        self.requests: list[pb.WatchRequest] = []
        self.histories: list[pb.HistoryRequest] = []
        self.watched = asyncio.Semaphore(0)
        """Released by each Watch that has begun."""
        self.refusal: grpc.StatusCode | None = None
        """What every Watch is answered with."""
        self.cut_snapshot = False
        """Break every snapshot off after its first instance."""
        self._watchers: list[asyncio.Queue[pb.WatchResponse | grpc.StatusCode | None]] = []

    @property
    def revision(self) -> int:
        return self.events[-1].revision if self.events else self.forgotten

    def happen(self, name: str, state: str, previous: str = "", **fields: Any) -> pb.Event:
        """Let an instance change; `deleted=True` takes it off the list."""
        time = Timestamp()
        time.GetCurrentTime()
        instance = pb.Instance(name=name, type="replica", uuid=f"u-{name}", state=state)
        given: dict[str, Any] = {"time": time, "previous_state": previous} | fields
        event = pb.Event(revision=self.revision + 1, instance=instance, **given)
        self.events.append(event)
        self.instances[name] = instance
        if event.deleted:
            del self.instances[name]
        self._tell(pb.WatchResponse(event=event))
        return event

    def bookmark(self) -> None:
        """Tell all who watch how far it is."""
        self._tell(pb.WatchResponse(bookmark=self._bookmark()))

    def forget(self) -> None:
        """Remember nothing of what has been."""
        self.forgotten = self.revision
        self.events.clear()

    def begin_again(self, epoch: str) -> None:
        """Lose the memory and count from one."""
        self.forget()
        self.epoch, self.forgotten = epoch, 0

    def cut(self, status: grpc.StatusCode | None) -> None:
        """Break every stream off with a status, or end it in good order."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.put_nowait(status)

    @property
    def handler(self) -> grpc.GenericRpcHandler:
        """What a server serves."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch, pb.WatchRequest.FromString, pb.WatchResponse.SerializeToString
            ),
            "History": grpc.unary_unary_rpc_method_handler(
                self._history, pb.HistoryRequest.FromString, pb.HistoryResponse.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler("instance_manager.v1.EventService", methods)

    def _tell(self, message: pb.WatchResponse) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(message)

    def _bookmark(self, **fields: Any) -> pb.Bookmark:
        return pb.Bookmark(revision=self.revision, epoch=self.epoch, **fields)

    async def _history(self, request: pb.HistoryRequest, _: Any) -> pb.HistoryResponse:
        self.histories.append(request)
        wanted = [
            event
            for event in self.events
            if (event.time.seconds, event.time.nanos)
            >= (request.since_time.seconds, request.since_time.nanos)
            and (event.instance.name in request.filter.names or not request.filter.names)
        ]
        return pb.HistoryResponse(
            events=wanted[-request.limit :],
            oldest_revision=self.forgotten + 1,
            revision=self.revision,
            epoch=self.epoch,
        )

    async def _watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:
        self.requests.append(request)
        if self.refusal is not None:
            await context.abort(self.refusal, "cannot: as the test says")
        if request.HasField("since_revision") and not self._remembers(request) and not request.snapshot:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "cannot go back so far")
        mine: asyncio.Queue[pb.WatchResponse | grpc.StatusCode | None] = asyncio.Queue()
        for first in self._first(request):
            mine.put_nowait(first)
        self._watchers.append(mine)
        self.watched.release()
        await context.send_initial_metadata(())
        while (told := await mine.get()) is not None:
            if isinstance(told, grpc.StatusCode):
                await context.abort(told, "as the test says")
            else:
                yield told

    def _remembers(self, request: pb.WatchRequest) -> bool:
        return (
            request.HasField("since_revision")
            and request.epoch in {"", self.epoch}
            and self.forgotten <= request.since_revision <= self.revision
        )

    def _first(self, request: pb.WatchRequest) -> Iterator[pb.WatchResponse | grpc.StatusCode]:
        """Yield what a stream begins with."""
        since = request.since_revision
        if self._remembers(request):
            yield pb.WatchResponse(bookmark=pb.Bookmark(revision=since, epoch=self.epoch))
            yield from (pb.WatchResponse(event=event) for event in self.events if event.revision > since)
        elif request.snapshot:
            for instance in self.instances.values():
                yield pb.WatchResponse(instance=instance)
                if self.cut_snapshot:
                    yield grpc.StatusCode.UNAVAILABLE
            yield pb.WatchResponse(bookmark=self._bookmark(snapshot_complete=True))
        else:
            yield pb.WatchResponse(bookmark=self._bookmark())
