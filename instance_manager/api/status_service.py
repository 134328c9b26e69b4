"""StatusService: how this instance manager fares, and what its instances use."""

import asyncio
import time

from google.protobuf.duration_pb2 import Duration

from instance_manager.api.events_wire import filter_from_wire
from instance_manager.api.service import Service, rpc
from instance_manager.app.containment import Containment, ContainmentStatus
from instance_manager.app.usage import UsageReader
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.instance import type_of_process
from instance_manager.core.limits import InstanceLimits
from instance_manager.core.process import Process
from instance_manager.core.usage import Usage, cpu_share
from instance_manager.pb.instance_manager.v1 import status_pb2 as pb

_LONGEST = 10.0
"""Seconds between two looks."""


class StatusService(Service):
    """The methods of StatusService."""

    descriptor = pb.DESCRIPTOR.services_by_name["StatusService"]

    def __init__(self, containment: Containment, usages: UsageReader) -> None:
        self._containment = containment
        self._usages = usages

    @rpc("Get")
    def get(self, request: pb.StatusRequest) -> pb.StatusResponse:  # noqa: ARG002 - it is empty
        """Return which means there are."""
        return pb.StatusResponse(containment=_containment_to_wire(self._containment.status()))

    @rpc("Usage")
    async def usage(self, request: pb.UsageRequest) -> pb.UsageResponse:
        """Return what instances use."""
        wanted = filter_from_wire(request.filter).matches
        over = _seconds(request.over)
        begun, earlier = time.monotonic(), await self._usages.read(wanted) if over else {}
        await asyncio.sleep(over)
        later, seconds = await self._usages.read(wanted), time.monotonic() - begun
        answer = pb.UsageResponse()
        for uuid, (process, usage) in later.items():
            if uuid in earlier:
                share = cpu_share(earlier[uuid][1], usage, seconds)
            else:
                share = cpu_share(Usage(usage.since, 0), usage, time.time() - usage.since)
            answer.instances.append(_usage_to_wire(process, usage, share))
        return answer


def _seconds(over: Duration) -> float:
    """Return the time between two looks.

    Raises:
        InvalidArgumentError: if there cannot be so much.
    """
    seconds = over.seconds + over.nanos / 1e9
    if not 0 <= seconds <= _LONGEST:
        raise InvalidArgumentError(
            f"cannot look over {seconds:g} seconds: it is 0, for the average so far, to {_LONGEST:g}"
        )
    return seconds


def _containment_to_wire(status: ContainmentStatus) -> pb.Containment:
    return pb.Containment(
        kind=status.kind,
        reason=status.why,
        folder=status.folder,
        controllers=status.controllers,
        controllers_missing=status.controllers_missing,
        limits=_limits_to_wire(status.limits),
        limits_refused=status.limits_refused,
        failures=status.failures,
    )


def _limits_to_wire(limits: InstanceLimits) -> pb.Limits:
    return pb.Limits(memory_max=limits.memory_max, pids_max=limits.pids_max, cpu_weight=limits.cpu_weight)


def _usage_to_wire(process: Process, usage: Usage, share: float | None) -> pb.InstanceUsage:
    message = pb.InstanceUsage(
        name=process.name,
        type=type_of_process(process.name, process.spec.instance_type),
        uuid=process.uuid,
        cpu_share=share,
        memory_bytes=usage.memory_bytes,
        processes=usage.processes,
        threads=usage.threads,
        read_bytes=usage.read_bytes,
        written_bytes=usage.written_bytes,
        out_of_memory_kills=usage.out_of_memory_kills,
    )
    message.since.FromNanoseconds(int(usage.since * 1e9))
    if usage.cpu_seconds is not None:
        message.cpu_time.FromNanoseconds(int(usage.cpu_seconds * 1e9))
    return message
