"""InstanceService: engines and replicas of both data engines.

A v1 instance is a process with the same name in the same registry as that of ProcessManagerService. Requests
about v2 instances go to `InstanceV2`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf import empty_pb2

from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.instance_wire import (
    instance_spec_from_wire,
    instance_to_wire,
    is_v2,
    serialize_entry,
    serialize_one,
)
from instance_manager.api.logs import stream_log
from instance_manager.api.serialized import SerializedList, SerializedProcesses
from instance_manager.api.service import Context, Service, rpc
from instance_manager.api.version import manager_versions
from instance_manager.app.broadcast import Pings
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.errors import InvalidArgumentError, UnimplementedError
from instance_manager.core.names import validate_name
from instance_manager.pb.imrpc import common_pb2, imrpc_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from instance_manager.platform.logging import LogControl

_Response = TypeVar("_Response")
_EMPTY = empty_pb2.Empty()
_PING = _EMPTY.SerializeToString()


class InstanceService(Service):
    """The methods of InstanceService."""

    descriptor = pb.DESCRIPTOR.services_by_name["InstanceService"]

    def __init__(
        self,
        supervisor: Supervisor,
        replacer: Replacer,
        pings: Pings,
        v2: InstanceV2,
        log_control: LogControl,
    ) -> None:
        self._supervisor = supervisor
        self._replacer = replacer
        self._pings = pings
        self._v2 = v2
        self._log = log_control
        self._list = SerializedList(supervisor, serialize_entry)
        self._each = SerializedProcesses(supervisor, serialize_one)

    @rpc("InstanceCreate", changes=True)
    async def create(self, request: pb.InstanceCreateRequest) -> pb.InstanceResponse:
        """Start an instance and return at once."""
        if not request.HasField("spec"):
            raise InvalidArgumentError(
                "cannot create an instance without a spec: set spec.name and spec.type"
            )
        spec = request.spec
        if is_v2(spec.data_engine, spec.backend_store_driver):
            return await self._v2.create(request)
        if request.data_layout_type != common_pb2.DATA_LAYOUT_TYPE_REPLICATED:
            raise InvalidArgumentError(
                "cannot spread a v1 volume over shards: leave data_layout_type out, or use data_engine v2"
            )
        return instance_to_wire(self._supervisor.create(instance_spec_from_wire(spec)))

    @rpc("InstanceDelete", changes=True)
    async def delete(self, request: pb.InstanceDeleteRequest) -> pb.InstanceResponse:
        """Begin to stop an instance and return at once with deleted=true."""
        if is_v2(request.data_engine, request.backend_store_driver):
            return await self._v2.delete(request)
        validate_name(request.name)
        return instance_to_wire(self._supervisor.delete(request.name, request.uuid), deleted=True)

    @rpc("InstanceGet")
    async def get(self, request: pb.InstanceGetRequest) -> pb.InstanceResponse | bytes:
        """Return one instance."""
        if is_v2(request.data_engine, request.backend_store_driver):
            return await self._v2.get(request)
        validate_name(request.name)
        return self._each.get(request.name)

    @rpc("InstanceList")
    async def list(self, _: empty_pb2.Empty) -> bytes:
        """Return all instances of both data engines; if both have one with the same name, that of v1."""
        v2 = await self._v2.list()
        if not v2:
            return self._list.get()
        # Of two map entries with the same key, the last one counts.
        return pb.InstanceListResponse(instances=v2).SerializeToString() + self._list.get()

    @rpc("InstanceReplace", changes=True, waits=True)
    async def replace(self, request: pb.InstanceReplaceRequest, within: float | None) -> pb.InstanceResponse:
        """Replace a running instance by one with another binary."""
        spec = request.spec
        if is_v2(spec.data_engine, spec.backend_store_driver):
            return self._v2.replace(request)
        wanted = instance_spec_from_wire(spec)
        return instance_to_wire(await self._replacer.replace(wanted, request.terminate_signal, within))

    @rpc("InstanceLog")
    async def log(self, request: pb.InstanceLogRequest, context: Context) -> None:
        """Stream the log of an instance line by line."""
        if is_v2(request.data_engine, request.backend_store_driver):
            self._v2.log(request)
        await stream_log(self._supervisor.logs, request.name, context)

    @rpc("InstanceWatch")
    async def watch(self, _: empty_pb2.Empty, context: Context) -> None:
        """Stream a ping for every change from now on; unread pings are merged."""
        with self._pings.subscribe() as pings:
            # Headers mean to the client that it misses nothing from here on.
            await context.send_initial_metadata(())
            async for _ping in pings:
                await context.write(_PING)

    # --- what only v2 can do ---

    @rpc("InstanceSuspend", changes=True)
    async def suspend(self, request: pb.InstanceSuspendRequest) -> empty_pb2.Empty:
        """Suspend the I/O of an instance."""
        return await _only_v2(self._v2.suspend, request, "suspend")

    @rpc("InstanceResume", changes=True)
    async def resume(self, request: pb.InstanceResumeRequest) -> empty_pb2.Empty:
        """Resume the I/O of an instance."""
        return await _only_v2(self._v2.resume, request, "resume")

    @rpc("InstanceSwitchOverTarget", changes=True)
    async def switch_over(self, request: pb.InstanceSwitchOverTargetRequest) -> empty_pb2.Empty:
        """Switch a frontend over to another target."""
        return await _only_v2(self._v2.switch_over, request, "switch the target of")

    @rpc("InstanceDeleteTarget", changes=True)
    async def delete_target(self, request: pb.InstanceDeleteTargetRequest) -> empty_pb2.Empty:
        """Delete the target of an engine."""
        return await _only_v2(self._v2.delete_target, request, "delete the target of")

    # --- the daemon's own log, or that of the SPDK service ---

    @rpc("LogSetLevel", changes=True, sets=True)
    async def log_set_level(self, request: pb.LogSetLevelRequest) -> empty_pb2.Empty:
        """Set the log level."""
        if is_v2(request.data_engine):
            return await self._v2.log_set_level(request)
        self._log.set_level(request.level)
        return _EMPTY

    @rpc("LogGetLevel")
    async def log_get_level(self, request: pb.LogGetLevelRequest) -> pb.LogGetLevelResponse:
        """Return the log level."""
        if is_v2(request.data_engine):
            return await self._v2.log_get_level(request)
        return pb.LogGetLevelResponse(level=self._log.level)

    @rpc("LogSetFlags", changes=True, sets=True)
    async def log_set_flags(self, request: pb.LogSetFlagsRequest) -> empty_pb2.Empty:
        """Set which parts log in detail."""
        if is_v2(request.data_engine):
            return await self._v2.log_set_flags(request)
        self._log.set_flags(request.flags)
        return _EMPTY

    @rpc("LogGetFlags")
    async def log_get_flags(self, request: pb.LogGetFlagsRequest) -> pb.LogGetFlagsResponse:
        """Return which parts log in detail."""
        if is_v2(request.data_engine):
            return await self._v2.log_get_flags(request)
        return pb.LogGetFlagsResponse(flags=self._log.flags)

    @rpc("VersionGet")
    def version(self, _: Any) -> imrpc_pb2.VersionResponse:
        """Return the versions."""
        return manager_versions()


async def _only_v2(call: Callable[[Any], Awaitable[_Response]], request: Any, verb: str) -> _Response:
    if not is_v2(request.data_engine):
        raise UnimplementedError(f"cannot {verb} a v1 instance: only data_engine v2 can")
    return await call(request)
