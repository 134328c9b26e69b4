"""EventService: every change of every v1 instance, as it happens and again afterwards."""

from collections.abc import Callable, Iterable
from datetime import datetime

from instance_manager.client.channel import Channel, Stream
from instance_manager.client.event_stream import EventStream, Position
from instance_manager.pb.instance_manager.v1 import events_pb2 as pb


def _silently(_: str) -> None:
    """Tell nobody."""


class EventCalls(Channel):
    """The methods of EventService.

    Which instances are meant: any of `names`, with a name that begins with `prefix`, of any of `types`
    (engine, replica); what is given has to hold together, and nothing given means all.
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
        """Stream changes for as long as it is wanted; a lost connection is made again, and nothing left out.

        What the daemon does not remember any more is told as a `Gap`.

        Args:
            since: begin with the changes after this one; None begins with the next.
            names: see above.
            prefix: see above.
            types: see above.
            snapshot: begin with every instance as it is, and again whenever changes were lost.
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
        """Return past changes, oldest first, and how far the memory reaches.

        Args:
            since: only changes after this revision.
            since_time: only changes at or after this time; without a time zone it is UTC.
            names: see above.
            prefix: see above.
            types: see above.
            limit: only the last so many; 0 for all that are remembered.
        """
        request = pb.HistoryRequest(filter=_filter(names, prefix, types), since_revision=since, limit=limit)
        if since_time is not None:
            request.since_time.FromDatetime(since_time)
        return await self._history(request)

    def watch_events(self, *, snapshot: bool = False) -> Stream[pb.WatchResponse]:
        """Stream changes as the daemon sends them, until the connection is lost; `events` makes it again."""
        return self._watch_events(pb.WatchRequest(snapshot=snapshot), wait_for_ready=False)

    async def _history(self, request: pb.HistoryRequest) -> pb.HistoryResponse:
        return await self._unary("instance_manager.v1.EventService/History", request, pb.HistoryResponse)

    def _watch_events(self, request: pb.WatchRequest, wait_for_ready: bool) -> Stream[pb.WatchResponse]:
        method = "instance_manager.v1.EventService/Watch"
        return self._stream(method, request, pb.WatchResponse, wait_for_ready=wait_for_ready)


def _filter(names: Iterable[str], prefix: str, types: Iterable[str]) -> pb.Filter:
    return pb.Filter(names=names, name_prefix=prefix, types=types)
