"""A stream of changes that survives lost connections and tells when it could not be made whole again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeAlias

import grpc
from grpc.aio import AioRpcError

from instance_manager.client.channel import LOST, Stream
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
"""Seconds between attempts to watch again."""
_FORGOTTEN = "the instance manager does not remember the changes any more"
_BROKEN_OFF = "the connection was lost in the middle of a snapshot"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream of changes is; a later stream can begin there."""

    revision: int
    """Of the last change that has been told or was not asked for."""
    epoch: str = ""
    """The sequence that the revision belongs to; without it, another sequence may be taken for the same."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes were lost: the daemon does not remember them any more."""

    after: Position | None
    """Everything up to here has been told; None if a snapshot was not told to its end."""
    then: Position | None
    """The stream goes on after this; None if a snapshot follows: forget every instance known so far."""
    reason: str

    @property
    def lost(self) -> int | None:
        """How many changes, those of all instances counted; None if nobody can tell."""
        if self.after is None or self.then is None or self.after.epoch != self.then.epoch:
            return None
        return max(self.then.revision - self.after.revision, 0)


Told: TypeAlias = pb.Event | pb.Instance | pb.Bookmark | Gap
"""An `Event`; a `Gap`; and in a stream with a snapshot its instances and the `Bookmark` that ends them."""


class EventStream:
    """Changes, one after the other: iterate over it once, cancel it when it is no longer wanted.

    Raises `AioRpcError` for a call that fails before anything was told, and for every failure but a lost
    connection.
    """

    def __init__(
        self,
        watch: Callable[[pb.WatchRequest, bool], Stream[pb.WatchResponse]],
        history: Callable[[pb.HistoryRequest], Awaitable[pb.HistoryResponse]],
        request: pb.WatchRequest,
        on_lost: Callable[[str], None],
    ) -> None:
        self.position: Position | None = None
        """How far it is; None until it has begun, and in the middle of a snapshot."""
        if request.HasField("since_revision"):
            self.position = Position(request.since_revision, request.epoch)
        self._watch = watch
        self._history = history
        self._filter = request.filter
        self._snapshot = request.snapshot
        self._on_lost = on_lost
        self._stream: Stream[pb.WatchResponse] | None = None
        self._answered = False
        self._asked_before = self.position is not None
        """A snapshot would not be the first thing that is told."""
        self._in_snapshot = False
        """A snapshot has begun on this connection."""
        self._refusal = ""
        """Why the daemon cannot go on after the position; empty as long as it can."""
        self._cancelled = False

    async def begun(self) -> Self:
        """Wait until the daemon has taken the call; what happens from then on is in the stream."""
        await self._connection().begun()
        return self

    def cancel(self) -> None:
        """End the stream, and the iteration over it."""
        self._cancelled = True
        self._disconnect()

    async def __aiter__(self) -> AsyncIterator[Told]:
        """Yield what is told, until it is cancelled."""
        delay = _FIRST_DELAY
        try:
            while not self._cancelled:
                try:
                    if self._refusal:
                        yield await self._skip()
                    async for message in self._connection():
                        self._answered, delay = True, _FIRST_DELAY
                        for told in self._taken(message):
                            yield told
                    self._on_lost("the instance manager is ending")
                except AioRpcError as error:
                    self._survive(error)
                self._disconnect()
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cancelled or (task is not None and task.cancelling()):
                raise
        finally:
            self._disconnect()

    def _connection(self) -> Stream[pb.WatchResponse]:
        """Return the stream under way, or ask for what comes after the position."""
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
        """Note why a call has failed, or raise what cannot be survived."""
        reason = error.details() or error.code().name
        if error.code() is grpc.StatusCode.OUT_OF_RANGE and not self._snapshot:
            self._refusal = reason
        elif self._answered and error.code() in LOST:
            self._on_lost(reason)
        else:
            raise error

    def _taken(self, message: pb.WatchResponse) -> Iterator[Told]:
        """Note how far a message leads and yield what it tells."""
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
        """Note that a snapshot is told, and yield that changes are lost if others had been asked for."""
        if self._in_snapshot:
            return
        self._in_snapshot = True
        if self._asked_before:
            whole = self.position is not None
            yield Gap(self.position, None, _FORGOTTEN if whole else _BROKEN_OFF)
        self._asked_before = True
        self.position = None

    async def _skip(self) -> Gap:
        """Go to the oldest change that the daemon remembers and return what is lost by that."""
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
