"""A stream of changes that survives lost connections, and reports changes that were lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeAlias

import grpc
from grpc.aio import AioRpcError

from instance_manager.client.channel import LOST, Stream
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb
from instance_manager.platform.backoff import exponential_backoff

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
"""Seconds between attempts to watch again."""
_FORGOTTEN = "the instance manager does not remember the changes any more"
_BROKEN_OFF = "the connection was lost in the middle of a snapshot"


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a stream of changes, from which a later stream can resume."""

    revision: int
    """Revision of the last change that was yielded or filtered out."""
    epoch: str = ""
    """The epoch of the revision; if empty, a new sequence of revisions is not detected."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes were lost, because the daemon no longer remembers them."""

    after: Position | None
    """Everything up to here was yielded; None if a snapshot was incomplete."""
    then: Position | None
    """The stream continues after this; None if a snapshot follows: forget all instances known so far."""
    reason: str
    """Why they were lost, in words."""

    @property
    def lost(self) -> int | None:
        """The number of lost changes of all instances; None if unknown."""
        if self.after is None or self.then is None or self.after.epoch != self.then.epoch:
            return None
        return max(self.then.revision - self.after.revision, 0)


StreamItem: TypeAlias = pb.Event | pb.Instance | pb.Bookmark | Gap
"""An `Event`, a `Gap`, or in a stream with a snapshot its instances and the `Bookmark` that ends them."""


class EventStream:
    """A stream of changes: iterate over it once, cancel it when it is no longer wanted.

    Raises `AioRpcError` if the first attempt fails, and later for every failure but a lost connection.
    """

    def __init__(
        self,
        watch: Callable[[pb.WatchRequest, bool], Stream[pb.WatchResponse]],
        history: Callable[[pb.HistoryRequest], Awaitable[pb.HistoryResponse]],
        request: pb.WatchRequest,
        on_lost: Callable[[str], None],
    ) -> None:
        self.position: Position | None = None
        """The present position; None until the stream has begun, and during a snapshot."""
        if request.HasField("since_revision"):
            self.position = Position(request.since_revision, request.epoch)
        self._watch = watch
        self._history = history
        self._filter = request.filter
        self._snapshot = request.snapshot
        self._on_lost = on_lost
        self._stream: Stream[pb.WatchResponse] | None = None
        self._answered = False
        self._started_before = self.position is not None
        """Whether a snapshot would not be the first thing in the stream."""
        self._in_snapshot = False
        """Whether a snapshot has begun on this connection."""
        self._refusal = ""
        """Why the daemon cannot resume from the position; empty as long as it can."""
        self._cancelled = False

    async def accepted(self) -> Self:
        """Wait until the daemon has accepted the call; the stream has everything from then on."""
        await self._connection().accepted()
        return self

    def cancel(self) -> None:
        """End the stream, and the iteration over it."""
        self._cancelled = True
        self._disconnect()

    async def __aiter__(self) -> AsyncIterator[StreamItem]:
        """Yield changes until cancelled."""
        delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
        try:
            while not self._cancelled:
                try:
                    if self._refusal:
                        yield await self._skip()
                    async for message in self._connection():
                        self._answered = True
                        delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
                        for item in self._items(message):
                            yield item
                    self._on_lost("the instance manager is ending")
                except AioRpcError as error:
                    self._survive(error)
                self._disconnect()
                await asyncio.sleep(next(delays))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cancelled or (task is not None and task.cancelling()):
                raise
        finally:
            self._disconnect()

    def _connection(self) -> Stream[pb.WatchResponse]:
        """Return the present stream, or start one from the position."""
        if self._stream is None:
            request = pb.WatchRequest(filter=self._filter, snapshot=self._snapshot)
            if self.position is not None:
                request.since_revision, request.epoch = self.position.revision, self.position.epoch
            self._in_snapshot = False
            self._stream = self._watch(request, self._answered)
        return self._stream

    def _disconnect(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def _survive(self, error: AioRpcError) -> None:
        """Note why a call has failed, or raise the error if it is not just a lost connection."""
        reason = error.details() or error.code().name
        if error.code() is grpc.StatusCode.OUT_OF_RANGE and not self._snapshot:
            self._refusal = reason
        elif self._answered and error.code() in LOST:
            self._on_lost(reason)
        else:
            raise error

    def _items(self, message: pb.WatchResponse) -> Iterator[StreamItem]:
        """Update the position by a message, and yield its content."""
        match message.WhichOneof("message"):
            case "event":
                epoch = self.position.epoch if self.position else ""
                self.position = Position(message.event.revision, epoch)
                yield message.event
            case "instance":
                yield from self._snapshot_begun()
                yield message.instance
            case "bookmark":
                ends_snapshot = message.bookmark.snapshot_complete
                if ends_snapshot:
                    yield from self._snapshot_begun()
                self.position = Position(message.bookmark.revision, message.bookmark.epoch)
                if ends_snapshot:
                    yield message.bookmark

    def _snapshot_begun(self) -> Iterator[Gap]:
        """Note that a snapshot begins, and yield a gap if the stream had started before."""
        if self._in_snapshot:
            return
        self._in_snapshot = True
        if self._started_before:
            whole = self.position is not None
            yield Gap(self.position, None, _FORGOTTEN if whole else _BROKEN_OFF)
        self._started_before = True
        self.position = None

    async def _skip(self) -> Gap:
        """Skip to the oldest change that the daemon remembers, and return the gap."""
        after, reason = self.position, self._refusal
        memory = await self._history(pb.HistoryRequest(limit=1))
        same = after is not None and after.epoch in {"", memory.epoch}
        first = memory.oldest_revision - 1 if memory.oldest_revision else memory.revision
        if same and after is not None:
            # A position that lies ahead of all that has ever happened leads to the present.
            first = memory.revision if after.revision > memory.revision else max(first, after.revision)
        self.position = Position(first, memory.epoch)
        self._answered, self._refusal = True, ""
        return Gap(after, self.position, reason)
