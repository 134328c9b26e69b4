"""EventService: every change as it happens, and the history of changes."""

import asyncio

from instance_manager.api.events_wire import (
    Filter,
    filter_from_wire,
    serialize_event,
    serialize_history,
    snapshot_to_wire,
)
from instance_manager.api.serialized import SerializedChanges
from instance_manager.api.service import Context, Service, rpc
from instance_manager.api.watching import accept, watching
from instance_manager.app.supervised_process import Waiting
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.change import Change
from instance_manager.core.errors import InvalidArgumentError, OutOfRangeError
from instance_manager.core.process import Process
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb

_BOOKMARK_AFTER = 100
"""Number of filtered-out changes after which a watcher gets a bookmark."""
_BOOKMARK_SECONDS = 10.0
"""Seconds since the last message, by the times of the changes, after which it gets one as well."""
_CHUNK = 200
"""Events serialized at a time, which takes a few milliseconds."""


class EventService(Service):
    """The methods of EventService."""

    descriptor = pb.DESCRIPTOR.services_by_name["EventService"]

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._events = supervisor.events
        self._messages = SerializedChanges(serialize_event)

    @rpc("Watch")
    async def watch(self, request: pb.WatchRequest, context: Context) -> None:
        """Stream changes: from now on, after a snapshot, or after a known revision."""
        wanted = filter_from_wire(request.filter)
        if request.since_revision < 0:
            raise InvalidArgumentError(
                f"cannot resume after revision {request.since_revision}: it is 0 or more"
            )
        async with watching(
            self._events, context, "watch again from the last revision you have seen"
        ) as changes:
            # Nothing happens between the subscription and these two, so no change is missed or repeated.
            revision, processes = self._events.revision, self._supervisor.processes()
            stream = _Stream(context, wanted, self._messages, self._events.history.epoch)
            missed = await self._missed(request)
            await accept(context, changes)
            if missed is not None:
                await stream.bookmark(request.since_revision)
                for change in missed:
                    await stream.send(change)
                    revision = change.revision
            elif request.snapshot:
                for process in processes.values():
                    if wanted.matches(process):
                        instance = snapshot_to_wire(process, self._waiting(process))
                        await context.write(pb.WatchResponse(instance=instance).SerializeToString())
                await stream.bookmark(revision, snapshot_complete=True)
            else:
                await stream.bookmark(revision)
            async for change in changes:
                if change.revision > revision:
                    await stream.send(change)
                    revision = change.revision  # one that is repeated has it, too

    def _waiting(self, process: Process) -> Waiting | None:
        """Return for what a process is waited for, if it is still as it was in the snapshot."""
        same = self._supervisor.find(process.name) is process
        return self._supervisor.waiting(process.name) if same else None

    async def _missed(self, request: pb.WatchRequest) -> list[Change] | None:
        """Return the changes that the caller has not seen, None if it starts anew."""
        if not request.HasField("since_revision"):
            return None
        try:
            return await self._events.history.after(request.since_revision, request.epoch)
        except OutOfRangeError:
            if request.snapshot:
                return None
            raise

    @rpc("History")
    async def history(self, request: pb.HistoryRequest) -> bytes:
        """Return the changes that are kept, oldest first."""
        wanted = filter_from_wire(request.filter)
        if request.limit < 0:
            raise InvalidArgumentError(f"cannot list the last {request.limit} events: use 0 for all of them")
        # Not ToNanoseconds(), which raises for invalid times such as negative nanoseconds.
        since = request.since_time.seconds + request.since_time.nanos / 1e9
        remembered = await self._events.history.all()
        matching = [
            change
            for change in remembered
            if change.revision > request.since_revision
            and change.time >= since
            and wanted.matches(change.process)
        ][-request.limit :]
        answer = pb.HistoryResponse(
            oldest_revision=remembered[0].revision if remembered else 0,
            revision=self._events.revision,
            epoch=self._events.history.epoch,
        )
        parts = [answer.SerializeToString()]
        for begin in range(0, len(matching), _CHUNK):
            parts.append(serialize_history(matching[begin : begin + _CHUNK]))
            await asyncio.sleep(0)
        return b"".join(parts)


class _Stream:
    """The messages to one watcher."""

    def __init__(self, context: Context, wanted: Filter, messages: SerializedChanges, epoch: str) -> None:
        self._context = context
        self._wanted = wanted
        self._messages = messages
        self._epoch = epoch
        self._kept = 0
        self._last = 0.0

    async def send(self, change: Change) -> None:
        """Send a change if it passes the filter, else once in a while a bookmark."""
        if self._wanted.matches(change.process):
            self._kept, self._last = 0, change.time
            await self._context.write(self._messages.get(change))
            return
        self._kept += 1
        if self._kept >= _BOOKMARK_AFTER or change.time - self._last >= _BOOKMARK_SECONDS:
            self._kept, self._last = 0, change.time
            await self.bookmark(change.revision)

    async def bookmark(self, revision: int, *, snapshot_complete: bool = False) -> None:
        """Send the position of the stream."""
        bookmark = pb.Bookmark(revision=revision, epoch=self._epoch, snapshot_complete=snapshot_complete)
        await self._context.write(pb.WatchResponse(bookmark=bookmark).SerializeToString())
