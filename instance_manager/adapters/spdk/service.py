"""The SPDK service for the use cases; implements `app.spdk.Spdk` and `app.disks.Disks`."""

from collections.abc import Sequence
from typing import Any

from google.protobuf import empty_pb2

from instance_manager.adapters.spdk.channel import SpdkChannel, Timeouts
from instance_manager.adapters.spdk.wire import KINDS
from instance_manager.core.instance import InstanceType
from instance_manager.core.spdk import SpdkInstance, SpdkSpec, SwitchOver
from instance_manager.pb.spdkrpc import spdk_pb2 as pb


class SpdkService:
    """Forwards to SPDKService; every method raises `UpstreamError` with the code that it gives."""

    def __init__(self, channel: SpdkChannel, timeouts: Timeouts | None = None) -> None:
        self._channel = channel
        self._timeouts = timeouts or Timeouts()

    async def create(self, spec: SpdkSpec) -> SpdkInstance:
        """Create an instance."""
        kind = KINDS[spec.type]
        doing = f"create the {spec.type} {spec.name or spec.volume_name!r}"
        return kind.read(await self._change(doing, f"{kind.prefix}Create", kind.create(spec)))

    async def delete(self, kind: InstanceType, name: str, *, cleanup_required: bool) -> None:
        """Delete an instance."""
        known = KINDS[kind]
        request = known.delete(name, cleanup_required)
        await self._change(f"delete the {kind} {name!r}", f"{known.prefix}Delete", request)

    async def get(self, kind: InstanceType, name: str) -> SpdkInstance:
        """Return one instance."""
        known = KINDS[kind]
        return known.read(await self._read(f"get the {kind} {name!r}", f"{known.prefix}Get", known.get(name)))

    async def list(self, kind: InstanceType, within: float) -> Sequence[SpdkInstance]:
        """Return all instances of a type."""
        known = KINDS[kind]
        answer = await self._channel.call(
            f"list instances of the type {kind}", f"{known.prefix}List", empty_pb2.Empty(), within
        )
        return [known.read(each) for each in getattr(answer, known.listed).values()]

    async def suspend(self, kind: InstanceType, name: str) -> None:
        """Suspend the I/O of an engine or a frontend."""
        request = (
            pb.EngineSuspendRequest(name=name)
            if kind is InstanceType.ENGINE
            else pb.EngineFrontendSuspendRequest(name=name)
        )
        await self._change(f"suspend the {kind} {name!r}", f"{KINDS[kind].prefix}Suspend", request)

    async def resume(self, kind: InstanceType, name: str) -> None:
        """Resume the I/O of an engine or a frontend."""
        request = (
            pb.EngineResumeRequest(name=name)
            if kind is InstanceType.ENGINE
            else pb.EngineFrontendResumeRequest(name=name)
        )
        await self._change(f"resume the {kind} {name!r}", f"{KINDS[kind].prefix}Resume", request)

    async def switch_over(self, request: SwitchOver) -> None:
        """Switch an engine frontend over to another target."""
        await self._change(
            f"switch the engine frontend {request.name!r} over to {request.target_address}",
            "EngineFrontendSwitchOver",
            pb.EngineFrontendSwitchOverRequest(
                name=request.name,
                engine_name=request.engine_name,
                target_address=request.target_address,
                switchover_phase=request.phase,
            ),
        )

    async def delete_target(self, name: str) -> None:
        """Delete the target of an engine."""
        request = pb.EngineDeleteTargetRequest(name=name)
        await self._change(f"delete the target of the engine {name!r}", "EngineDeleteTarget", request)

    async def log_set_level(self, level: str) -> None:
        """Set the log level of the SPDK service."""
        request = pb.LogSetLevelRequest(level=level)
        await self._read(f"set the log level of SPDK to {level!r}", "LogSetLevel", request)

    async def log_get_level(self) -> str:
        """Return the log level of the SPDK service."""
        answer = await self._read("get the log level of SPDK", "LogGetLevel", empty_pb2.Empty())
        return str(answer.level)

    async def log_set_flags(self, flags: str) -> None:
        """Set which parts of SPDK log in detail."""
        request = pb.LogSetFlagsRequest(flags=flags)
        await self._read(f"set the log flags of SPDK to {flags!r}", "LogSetFlags", request)

    async def log_get_flags(self) -> str:
        """Return which parts of SPDK log in detail."""
        answer = await self._read("get the log flags of SPDK", "LogGetFlags", empty_pb2.Empty())
        return str(answer.flags)

    async def forward(self, method: str, doing: str, request: Any, *, changes: bool) -> Any:
        """Call a method as it is."""
        return await (self._change if changes else self._read)(doing, method, request)

    async def _change(self, doing: str, method: str, request: Any) -> Any:
        return await self._channel.call(doing, method, request, self._timeouts.change)

    async def _read(self, doing: str, method: str, request: Any) -> Any:
        return await self._channel.call(doing, method, request, self._timeouts.read)
