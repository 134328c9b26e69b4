"""StatusService: how the instance manager fares, and what its instances use."""

from collections.abc import Iterable
from datetime import timedelta

from instance_manager.client.channel import Channel
from instance_manager.pb.instance_manager.v1 import events_pb2
from instance_manager.pb.instance_manager.v1 import status_pb2 as pb


class StatusCalls(Channel):
    """The methods of StatusService."""

    async def status(self) -> pb.StatusResponse:
        """Return which of its means the instance manager has on its machine, and why not others."""
        return await self._unary(
            "instance_manager.v1.StatusService/Get", pb.StatusRequest(), pb.StatusResponse
        )

    async def usage(self, names: Iterable[str] = (), *, over: timedelta | None = None) -> pb.UsageResponse:
        """Return what instances use.

        Args:
            names: of instances; none for all.
            over: look twice, so long after each other, to tell how much CPU is used now; 10 seconds at most.
                None for the average since each instance began.
        """
        request = pb.UsageRequest(filter=events_pb2.Filter(names=names))
        if over is not None:
            request.over.FromTimedelta(over)
        return await self._unary("instance_manager.v1.StatusService/Usage", request, pb.UsageResponse)
