"""EventService: every change of every v1 instance, as it happens and as history."""

from collections.abc import Callable, Iterable
from datetime import datetime

from instance_manager.client.channel import Channel, Stream
from instance_manager.client.event_stream import EventStream, Position
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb


def _silently(_: str) -> None:
    """Ignore a lost connection."""


class EventCalls(Channel):
    """The methods of EventService.

    Filters: `names`, a `prefix` of names, and `types` (engine, replica). An instance must match every filter
    that is given.
    """

    def events(
        self,
        *,
        since: Position | int | None = None,
        names: Iterable[str] = (),
        prefix: str = "",
        types: Iterable[str] = (),
        snapshot: bool = False,
        on_lost: Callable[[str], None] = _silently,
    ) -> EventStream:
        """Stream changes until cancelled; a lost connection is made again without missing a change.

        Changes that the daemon no longer remembers are reported as a `Gap`.

        Args:
            since: start after this change; None to start with the next one.
            names: only instances with one of these names.
            prefix: only instances whose name starts with this.
            types: only instances of one of these types.
            snapshot: start with all instances as they are, and again whenever changes were lost.
            on_lost: called with the reason whenever the connection is lost.
        """
        request = pb.WatchRequest(filter=_filter(names, prefix, types), snapshot=snapshot)
        if since is not None:
            position = Position(since) if isinstance(since, int) else since
            request.since_revision, request.epoch = position.revision, position.epoch
        return EventStream(self._watch_events, self._history, request, on_lost)

    async def event_history(
        self,
        *,
        since: int = 0,
        since_time: datetime | None = None,
        names: Iterable[str] = (),
        prefix: str = "",
        types: Iterable[str] = (),
        limit: int = 0,
    ) -> pb.HistoryResponse:
        """Return past changes, oldest first, and the oldest and latest revision that is remembered.

        Args:
            since: only changes after this revision.
            since_time: only changes at or after this time; without a time zone it is UTC.
            names: only instances with one of these names.
            prefix: only instances whose name starts with this.
            types: only instances of one of these types.
            limit: only the last `limit` changes; 0 for all.
        """
        request = pb.HistoryRequest(filter=_filter(names, prefix, types), since_revision=since, limit=limit)
        if since_time is not None:
            request.since_time.FromDatetime(since_time)
        return await self._history(request)

    def watch_events(self, *, snapshot: bool = False) -> Stream[pb.WatchResponse]:
        """Stream changes until the connection is lost; `events` makes it again."""
        return self._watch_events(pb.WatchRequest(snapshot=snapshot), wait_for_ready=False)

    async def _history(self, request: pb.HistoryRequest) -> pb.HistoryResponse:
        return await self._unary("instance_manager.v1.EventService/History", request, pb.HistoryResponse)

    def _watch_events(self, request: pb.WatchRequest, wait_for_ready: bool) -> Stream[pb.WatchResponse]:
        method = "instance_manager.v1.EventService/Watch"
        return self._stream(method, request, pb.WatchResponse, wait_for_ready=wait_for_ready)


def _filter(names: Iterable[str], prefix: str, types: Iterable[str]) -> pb.Filter:
    return pb.Filter(names=names, name_prefix=prefix, types=types)
