"""The instance managers of the search for orphans, over gRPC; old ones that only know processes work too."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from grpc import StatusCode
from grpc.aio import AioRpcError

from instance_manager.client.channel import DEFAULT_TIMEOUT, Stream
from instance_manager.client.client import Client
from instance_manager.client.instances import ENGINES
from instance_manager.client.merge import merge_streams
from instance_manager.core.instance import DataEngine, type_of_process
from instance_manager.orphans.events import InstanceChanged, InstanceEvent, InstancesListed
from instance_manager.orphans.interfaces import CannotDeleteError, CannotReadError
from instance_manager.orphans.model import ObservedInstance
from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse
from instance_manager.pb.imrpc.instance_pb2 import InstanceResponse
from instance_manager.pb.instance_manager.v1.events_pb2 import Event

_BEGUN_SECONDS = 2.0
"""After which a stream counts as begun."""

T = TypeVar("T")


class GrpcInstanceManager:
    """Implements `interfaces.InstanceManager`."""

    def __init__(self, name: str, connect: Callable[[], Client]) -> None:
        """Connect to an instance manager.

        Args:
            name: the name that owners use for it.
            connect: returns a new client. It is called again whenever a watch was lost, since certificates
                may have been renewed; it raises CannotReadError if they cannot be used.
        """
        self.name = name
        self._connect = connect
        self._client = connect()
        self._lost = False
        """Whether a watch has failed since the client was created."""

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def get_live(self, seen: ObservedInstance) -> ObservedInstance | None:
        """Return the instance that has the name of `seen` now, None if there is none."""

        async def instance() -> ObservedInstance:
            return _of_instance(
                await self._client.instance_get(seen.name, kind=seen.kind, data_engine=seen.data_engine)
            )

        async def process() -> ObservedInstance:
            return _of_process(await self._client.process_get(seen.name))

        try:
            # No process is an instance of v2, whatever its name.
            return await (_either(instance, process) if seen.data_engine == "v1" else instance())
        except AioRpcError as error:
            if error.code() is StatusCode.NOT_FOUND:
                return None
            raise self._cannot_read(error) from error

    async def list_live(self) -> Sequence[ObservedInstance]:
        """Return all instances."""

        async def instances() -> list[ObservedInstance]:
            return [_of_instance(each) for each in (await self._client.instance_list()).values()]

        async def processes() -> list[ObservedInstance]:
            return [_of_process(each) for each in (await self._client.process_list()).values()]

        try:
            return await _either(instances, processes)
        except AioRpcError as error:
            raise self._cannot_read(error) from error

    async def watch(self) -> AsyncGenerator[InstanceEvent, None]:
        """Yield all instances and then changes, from events, or from pings where there are no events."""
        if self._lost:
            await self._connect_again()
        streams: list[Stream[Any]] = []
        try:
            # A stream does not say at its begin whether there is such a method; a call does.
            known = await _is_implemented(self._client.instance_list)
            pings = self._client.instance_watch() if known else self._client.process_watch()
            events = self._client.watch_events() if await self._has_events() else None
            streams += [pings, events] if events else [pings]
            for stream in streams:
                await stream.accepted(_BEGUN_SECONDS)
            yield InstancesListed(self.name, await self.list_live())
            async with aclosing(merge_streams(pings, events)) as changes:
                async for change in changes:
                    yield await self._event(change)
        except AioRpcError as error:
            raise self._cannot_read(error) from error
        finally:
            self._lost = True
            for stream in streams:
                stream.cancel()
        raise CannotReadError(f"cannot read {self._label}: it is ending")

    async def _has_events(self) -> bool:
        return await _is_implemented(lambda: self._client.event_history(limit=1))

    async def _event(self, change: Event | None) -> InstanceEvent:
        if change is None:
            return InstancesListed(self.name, await self.list_live())
        instance = change.instance
        seen = ObservedInstance(instance.name, instance.uuid, instance.type, instance.state)
        # After a replace, the name already belongs to another instance.
        now = await self.get_live(seen) if change.deleted else seen
        return InstanceChanged(self.name, seen.name, now)

    async def delete(self, seen: ObservedInstance) -> bool:
        """Delete exactly this instance; returns False if there is none with this name and UUID."""
        if not seen.uuid:
            raise CannotDeleteError(f"cannot delete {seen.name} on {self._label}: it has no UUID")

        async def instance() -> object:
            return await self._client.instance_delete(
                seen.name, seen.uuid, kind=seen.kind, data_engine=seen.data_engine
            )

        try:
            if seen.data_engine == "v1":
                await _either(instance, lambda: self._client.process_delete(seen.name, seen.uuid))
            else:
                await self._refuse_without_comparing(seen)
                await instance()
        except AioRpcError as error:
            if error.code() is StatusCode.NOT_FOUND:
                return False
            raise CannotDeleteError(
                f"cannot delete {seen.name} on {self._label}: {_reason(error)}"
            ) from error
        return True

    async def _refuse_without_comparing(self, seen: ObservedInstance) -> None:
        """Refuse the deletion of a v2 instance where the UUID in the request is ignored.

        Go's instance manager ignores it for v2 and deletes whatever has the name. One that does not is
        recognised by its events.

        Raises:
            CannotDeleteError: if that is so.
        """
        if not await self._has_events():
            raise CannotDeleteError(
                f"cannot delete {seen.name} on {self._label}: it does not compare the UUIDs of v2 instances "
                "and could hit another of this name; delete it with the means of the data engine"
            )

    async def _connect_again(self) -> None:
        before, self._client = self._client, self._connect()
        self._lost = False
        # Calls in progress may end first.
        await before.close(DEFAULT_TIMEOUT)

    @property
    def _label(self) -> str:
        return f"instance manager {self.name} at {self._client.url}"

    def _cannot_read(self, error: AioRpcError) -> CannotReadError:
        return CannotReadError(f"cannot read {self._label}: {_reason(error)}")


async def _is_implemented(call: Callable[[], Awaitable[object]]) -> bool:
    """Return whether an instance manager implements a method."""
    try:
        await call()
    except AioRpcError as error:
        if error.code() is not StatusCode.UNIMPLEMENTED:
            raise
        return False
    return True


async def _either(instances: Callable[[], Awaitable[T]], processes: Callable[[], Awaitable[Any]]) -> T:
    """Call InstanceService, or ProcessManagerService if there is no such service.

    This is tried each time, because the instance manager behind an address may be replaced by a newer one.
    """
    try:
        return await instances()
    except AioRpcError as error:
        if error.code() is not StatusCode.UNIMPLEMENTED:
            raise
    answer: T = await processes()
    return answer


def _of_instance(response: InstanceResponse) -> ObservedInstance:
    spec, status = response.spec, response.status
    engine: DataEngine = "v2" if spec.data_engine == ENGINES["v2"] else "v1"
    kind = spec.type or (type_of_process(spec.name, "") if engine == "v1" else "")
    return ObservedInstance(spec.name, status.uuid, str(kind), status.state, engine, response.deleted)


def _of_process(response: ProcessResponse) -> ObservedInstance:
    spec, status = response.spec, response.status
    kind = str(type_of_process(spec.name, ""))
    return ObservedInstance(spec.name, status.uuid, kind, status.state, "v1", response.deleted)


def _reason(error: AioRpcError) -> str:
    """Return why a call has failed; in gRPC's messages about connecting, the reason comes last."""
    details = " ".join((error.details() or "no reason given").split())
    if not details.startswith("cannot ") and error.code() is StatusCode.UNAVAILABLE:
        details = details.rpartition(" error: ")[2] or details
    return f"{details} ({error.code().name})"
