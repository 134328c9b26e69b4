"""EventService: every change, as it happens and again afterwards."""

import asyncio

import grpc

from instance_manager.api.events_wire import (
    Filter,
    filter_from_wire,
    in_history,
    instance_to_wire,
    watched,
)
from instance_manager.api.methods import Context, generic_handler
from instance_manager.api.watching import watching
from instance_manager.api.wire import SerializedChanges
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.change import Change
from instance_manager.core.errors import InvalidArgumentError, OutOfRangeError
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["EventService"]

_BOOKMARK_AFTER = 100
"""Changes kept from a watcher by its filter until it is told how far the stream is."""
_BOOKMARK_SECONDS = 10.0
"""The same in time between the changes."""
_CHUNK = 200
"""Events serialized at once: a few milliseconds of the loop."""


class EventService:
    """The methods of EventService."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._events = supervisor.events
        self._watched = SerializedChanges(watched)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server."""
        return generic_handler(SERVICE, {"Watch": self.watch, "History": self.history})

    async def watch(self, request: pb.WatchRequest, context: Context) -> None:
        """Stream changes: from now on, after a snapshot, or after a revision that the caller has seen."""
        wanted = filter_from_wire(request.filter)
        if request.since_revision < 0:
            raise InvalidArgumentError(
                f"cannot resume after revision {request.since_revision}: it is 0 or more"
            )
        async with watching(
            self._events, context, "watch again from the last revision you have seen"
        ) as changes:
            # Between the subscription and these two nothing happens, so nothing is missed or told twice.
            revision, processes = self._events.revision, self._supervisor.processes()
            stream = _Stream(context, wanted, self._watched, self._events.history.epoch)
            missed = await self._missed(request)
            # Headers tell the client that from here on it misses nothing.
            await context.send_initial_metadata(())
            if missed is not None:
                await stream.bookmark(request.since_revision)
                for change in missed:
                    await stream.tell(change)
                    revision = change.revision
            elif request.snapshot:
                for process in processes.values():
                    if wanted.takes(process):
                        await context.write(
                            pb.WatchResponse(instance=instance_to_wire(process)).SerializeToString()
                        )
                await stream.bookmark(revision, snapshot_complete=True)
            else:
                await stream.bookmark(revision)
            async for change in changes:
                if change.revision > revision:
                    await stream.tell(change)

    async def _missed(self, request: pb.WatchRequest) -> list[Change] | None:
        """Return what the caller has not seen, None if it begins anew."""
        if not request.HasField("since_revision"):
            return None
        try:
            return await self._events.history.after(request.since_revision, request.epoch)
        except OutOfRangeError:
            if request.snapshot:
                return None
            raise

    async def history(self, request: pb.HistoryRequest) -> bytes:
        """Tell the past changes that are remembered, oldest first."""
        wanted = filter_from_wire(request.filter)
        if request.limit < 0:
            raise InvalidArgumentError(f"cannot tell the last {request.limit} events: use 0 for all of them")
        # Not ToNanoseconds(): it raises on what is no time, such as negative nanoseconds.
        since = request.since_time.seconds + request.since_time.nanos / 1e9
        remembered = await self._events.history.all()
        told = [
            change
            for change in remembered
            if change.revision > request.since_revision
            and change.time >= since
            and wanted.takes(change.process)
        ][-request.limit :]
        answer = pb.HistoryResponse(
            oldest_revision=remembered[0].revision if remembered else 0,
            revision=self._events.revision,
            epoch=self._events.history.epoch,
        )
        parts = [answer.SerializeToString()]
        for begin in range(0, len(told), _CHUNK):
            parts.append(in_history(told[begin : begin + _CHUNK]))
            await asyncio.sleep(0)
        return b"".join(parts)


class _Stream:
    """What one watcher is sent."""

    def __init__(self, context: Context, wanted: Filter, watched: SerializedChanges, epoch: str) -> None:
        self._context = context
        self._wanted = wanted
        self._watched = watched
        self._epoch = epoch
        self._kept = 0
        self._last = 0.0

    async def tell(self, change: Change) -> None:
        """Send a change if the watcher wants it, else now and then how far the stream is."""
        if self._wanted.takes(change.process):
            self._kept, self._last = 0, change.time
            await self._context.write(self._watched.get(change))
            return
        self._kept += 1
        if self._kept >= _BOOKMARK_AFTER or change.time - self._last >= _BOOKMARK_SECONDS:
            self._kept, self._last = 0, change.time
            await self.bookmark(change.revision)

    async def bookmark(self, revision: int, *, snapshot_complete: bool = False) -> None:
        """Say how far the stream is."""
        bookmark = pb.Bookmark(revision=revision, epoch=self._epoch, snapshot_complete=snapshot_complete)
        await self._context.write(pb.WatchResponse(bookmark=bookmark).SerializeToString())
