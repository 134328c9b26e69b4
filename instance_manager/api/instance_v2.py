"""The part of InstanceService for the v2 data engine."""

from google.protobuf import empty_pb2

from instance_manager.api.spdk_wire import deleted_to_wire, spdk_instance_to_wire, spdk_spec_from_wire
from instance_manager.app.spdk import SpdkInstances
from instance_manager.core.errors import FailedPreconditionError, UnimplementedError
from instance_manager.core.instance import parse_instance_type
from instance_manager.core.spdk import SwitchOver
from instance_manager.pb.imrpc import instance_pb2 as pb


class InstanceV2:
    """Handles requests with data_engine v2; each method raises what `app.spdk.SpdkInstances` raises.

    Args:
        instances: None if v2 is not enabled.
    """

    def __init__(self, instances: SpdkInstances | None) -> None:
        self._optional = instances

    @property
    def _instances(self) -> SpdkInstances:
        if self._optional is None:
            raise FailedPreconditionError(
                "cannot serve the v2 data engine: it is switched off; start the daemon with --spdk-enabled"
            )
        return self._optional

    async def create(self, request: pb.InstanceCreateRequest) -> pb.InstanceResponse:
        """Create an instance."""
        return spdk_instance_to_wire(await self._instances.create(spdk_spec_from_wire(request)))

    async def delete(self, request: pb.InstanceDeleteRequest) -> pb.InstanceResponse:
        """Delete an instance; with a UUID, only the instance with that UUID."""
        instances, kind = self._instances, parse_instance_type(request.type)
        await instances.delete(kind, request.name, request.uuid, cleanup_required=request.cleanup_required)
        return deleted_to_wire(kind, request.name, request.uuid)

    async def get(self, request: pb.InstanceGetRequest) -> pb.InstanceResponse:
        """Return one instance."""
        instances, kind = self._instances, parse_instance_type(request.type)
        return spdk_instance_to_wire(await instances.get(kind, request.name))

    async def list(self) -> dict[str, pb.InstanceResponse]:
        """Return all instances by name; none if v2 is not enabled."""
        if self._optional is None:
            return {}
        found = await self._optional.list()
        return {name: spdk_instance_to_wire(instance) for name, instance in found.items()}

    async def suspend(self, request: pb.InstanceSuspendRequest) -> empty_pb2.Empty:
        """Suspend the I/O of an engine or a frontend."""
        await self._instances.suspend(parse_instance_type(request.type), request.name)
        return empty_pb2.Empty()

    async def resume(self, request: pb.InstanceResumeRequest) -> empty_pb2.Empty:
        """Resume the I/O of an engine or a frontend."""
        await self._instances.resume(parse_instance_type(request.type), request.name)
        return empty_pb2.Empty()

    async def switch_over(self, request: pb.InstanceSwitchOverTargetRequest) -> empty_pb2.Empty:
        """Switch a frontend over to another target."""
        target = SwitchOver(
            name=request.name,
            target_address=request.target_address,
            engine_name=request.engine_name,
            phase=request.switchover_phase,
        )
        await self._instances.switch_over(parse_instance_type(request.type), target)
        return empty_pb2.Empty()

    async def delete_target(self, request: pb.InstanceDeleteTargetRequest) -> empty_pb2.Empty:
        """Delete the target of an engine, but not the engine."""
        await self._instances.delete_target(parse_instance_type(request.type), request.name)
        return empty_pb2.Empty()

    async def log_set_level(self, request: pb.LogSetLevelRequest) -> empty_pb2.Empty:
        """Set the log level of the SPDK service."""
        await self._instances.logging.log_set_level(request.level)
        return empty_pb2.Empty()

    async def log_get_level(self, _: pb.LogGetLevelRequest) -> pb.LogGetLevelResponse:
        """Return the log level of the SPDK service."""
        return pb.LogGetLevelResponse(level=await self._instances.logging.log_get_level())

    async def log_set_flags(self, request: pb.LogSetFlagsRequest) -> empty_pb2.Empty:
        """Set which parts of SPDK log in detail."""
        await self._instances.logging.log_set_flags(request.flags)
        return empty_pb2.Empty()

    async def log_get_flags(self, _: pb.LogGetFlagsRequest) -> pb.LogGetFlagsResponse:
        """Return which parts of SPDK log in detail."""
        return pb.LogGetFlagsResponse(flags=await self._instances.logging.log_get_flags())

    def replace(self, _: pb.InstanceReplaceRequest) -> pb.InstanceResponse:
        """Refuse: an instance of v2 has no binary of its own."""
        raise UnimplementedError("cannot replace a v2 instance: it has no binary of its own")

    def log(self, _: pb.InstanceLogRequest) -> None:
        """Refuse: the log of SPDK is not separated by instance."""
        raise UnimplementedError(
            "cannot return the log of a v2 instance: look at the log of the SPDK service"
        )
