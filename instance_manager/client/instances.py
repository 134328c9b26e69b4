"""InstanceService: instances of both data engines, and the log level."""

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from instance_manager.client.channel import Channel, Response, Stream
from instance_manager.client.processes import REPLACE_TIMEOUT
from instance_manager.core.instance import DataEngine
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb

ENGINES = {"v1": common_pb2.DATA_ENGINE_V1, "v2": common_pb2.DATA_ENGINE_V2}
"""The data engines as the messages have them."""


class InstanceCalls(Channel):
    """The methods of InstanceService.

    `kind` is the type of an instance: engine, engine-frontend, replica, shard or shardgroup. It is required
    for v2 and ignored for v1.
    """

    async def instance_create(self, spec: pb.InstanceSpec, *, sharded: bool = False) -> pb.InstanceResponse:
        """Start an instance and return it at once; watch or list to see it running.

        Args:
            spec: what to run; `spec.data_engine` selects the data engine.
            sharded: whether the data is distributed over shards (v2).
        """
        layout = common_pb2.DATA_LAYOUT_TYPE_SHARDED if sharded else common_pb2.DATA_LAYOUT_TYPE_REPLICATED
        request = pb.InstanceCreateRequest(spec=spec, data_layout_type=layout)
        return await self._instance("InstanceCreate", request, pb.InstanceResponse)

    async def instance_delete(
        self,
        name: str,
        uuid: str = "",
        *,
        kind: str = "",
        data_engine: DataEngine = "v1",
        disk_uuid: str = "",
        cleanup: bool = False,
    ) -> pb.InstanceResponse:
        """Begin to stop an instance.

        Args:
            name: name of the instance.
            uuid: if not empty, only the instance with this UUID is deleted.
            kind: its type.
            data_engine: its data engine.
            disk_uuid: UUID of the disk of a replica or shard (v2).
            cleanup: whether to remove the data too (v2).
        """
        request = pb.InstanceDeleteRequest(
            name=name,
            type=kind,
            uuid=uuid,
            data_engine=ENGINES[data_engine],
            disk_uuid=disk_uuid,
            cleanup_required=cleanup,
        )
        return await self._instance("InstanceDelete", request, pb.InstanceResponse)

    async def instance_get(
        self, name: str, *, kind: str = "", data_engine: DataEngine = "v1"
    ) -> pb.InstanceResponse:
        """Return one instance."""
        request = pb.InstanceGetRequest(name=name, type=kind, data_engine=ENGINES[data_engine])
        return await self._instance("InstanceGet", request, pb.InstanceResponse)

    async def instance_list(self) -> dict[str, pb.InstanceResponse]:
        """Return every instance of both data engines by name."""
        answer = await self._instance("InstanceList", empty_pb2.Empty(), pb.InstanceListResponse)
        return dict(answer.instances)

    async def instance_replace(
        self, spec: pb.InstanceSpec, terminate_signal: str = "SIGHUP"
    ) -> pb.InstanceResponse:
        """Replace a running instance by one with another binary (v1); returns when that is running."""
        request = pb.InstanceReplaceRequest(spec=spec, terminate_signal=terminate_signal)
        return await self._instance("InstanceReplace", request, pb.InstanceResponse, within=REPLACE_TIMEOUT)

    def instance_log(
        self,
        name: str,
        *,
        kind: str = "",
        data_engine: DataEngine = "v1",
        follow: bool = False,
        tail: int | None = None,
    ) -> AsyncIterator[str]:
        """Stream the lines of an instance's log (v1).

        Args:
            name: name of the instance, which may have been deleted.
            kind: its type.
            data_engine: its data engine.
            follow: whether to continue until the instance is deleted.
            tail: start with the last `tail` lines; None for all.
        """
        request = pb.InstanceLogRequest(name=name, type=kind, data_engine=ENGINES[data_engine])
        return self._log("imrpc.InstanceService/InstanceLog", request, follow=follow, tail=tail)

    def instance_watch(self) -> Stream[empty_pb2.Empty]:
        """Stream a ping whenever something has changed since `Stream.accepted` returned; list to see what."""
        return self._stream("imrpc.InstanceService/InstanceWatch", empty_pb2.Empty(), empty_pb2.Empty)

    async def instance_suspend(self, name: str, *, kind: str, data_engine: DataEngine = "v2") -> None:
        """Suspend the I/O of an instance (v2)."""
        request = pb.InstanceSuspendRequest(name=name, type=kind, data_engine=ENGINES[data_engine])
        await self._instance("InstanceSuspend", request, empty_pb2.Empty)

    async def instance_resume(self, name: str, *, kind: str, data_engine: DataEngine = "v2") -> None:
        """Resume the I/O of a suspended instance (v2)."""
        request = pb.InstanceResumeRequest(name=name, type=kind, data_engine=ENGINES[data_engine])
        await self._instance("InstanceResume", request, empty_pb2.Empty)

    async def instance_switch_over(
        self,
        name: str,
        target_address: str,
        *,
        kind: str,
        engine_name: str = "",
        phase: str = "",
        data_engine: DataEngine = "v2",
    ) -> None:
        """Switch a frontend over to another target (v2).

        Args:
            name: name of the frontend.
            target_address: the new target, HOST:PORT.
            kind: its type.
            engine_name: the engine behind that address.
            phase: the only phase to run; empty for all of them.
            data_engine: its data engine.
        """
        request = pb.InstanceSwitchOverTargetRequest(
            name=name,
            type=kind,
            data_engine=ENGINES[data_engine],
            target_address=target_address,
            engine_name=engine_name,
            switchover_phase=phase,
        )
        await self._instance("InstanceSwitchOverTarget", request, empty_pb2.Empty)

    async def instance_delete_target(self, name: str, *, kind: str, data_engine: DataEngine = "v2") -> None:
        """Delete the target of an engine, but not the engine (v2)."""
        request = pb.InstanceDeleteTargetRequest(name=name, type=kind, data_engine=ENGINES[data_engine])
        await self._instance("InstanceDeleteTarget", request, empty_pb2.Empty)

    # --- the log of the daemon (v1) or of the SPDK service (v2) ---

    async def log_level(self, data_engine: DataEngine = "v1") -> str:
        """Return the log level."""
        request = pb.LogGetLevelRequest(data_engine=ENGINES[data_engine])
        return (await self._instance("LogGetLevel", request, pb.LogGetLevelResponse)).level

    async def set_log_level(self, level: str, data_engine: DataEngine = "v1") -> None:
        """Set the log level, such as `debug` or `warning`."""
        request = pb.LogSetLevelRequest(level=level, data_engine=ENGINES[data_engine])
        await self._instance("LogSetLevel", request, empty_pb2.Empty)

    async def log_flags(self, data_engine: DataEngine = "v1") -> str:
        """Return which parts log in detail, comma-separated."""
        request = pb.LogGetFlagsRequest(data_engine=ENGINES[data_engine])
        return (await self._instance("LogGetFlags", request, pb.LogGetFlagsResponse)).flags

    async def set_log_flags(self, flags: str, data_engine: DataEngine = "v1") -> None:
        """Set which parts log in detail, comma-separated."""
        request = pb.LogSetFlagsRequest(flags=flags, data_engine=ENGINES[data_engine])
        await self._instance("LogSetFlags", request, empty_pb2.Empty)

    async def _instance(
        self, method: str, request: Message, kind: type[Response], *, within: float | None = None
    ) -> Response:
        return await self._unary(f"imrpc.InstanceService/{method}", request, kind, within=within)
