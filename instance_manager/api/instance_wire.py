"""Conversion between InstanceService's messages and processes of the v1 data engine."""

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.instance import InstanceType, parse_instance_type, type_of_process
from instance_manager.core.process import Process
from instance_manager.core.spec import ProcessSpec, arguments
from instance_manager.pb.imrpc import common_pb2, instance_pb2

V1 = common_pb2.DATA_ENGINE_V1
V2 = common_pb2.DATA_ENGINE_V2
_TYPES = (InstanceType.ENGINE, InstanceType.REPLICA)


def is_v2(data_engine: int, backend_store_driver: int = common_pb2.v1) -> bool:
    """Return whether a request is for v2; old clients know only `backend_store_driver`.

    Raises:
        InvalidArgumentError: if it is neither.
    """
    for field, value in (("data_engine", data_engine), ("backend_store_driver", backend_store_driver)):
        if value not in {V1, V2}:
            raise InvalidArgumentError(f"cannot use the {field} {value}: it is 0 (v1) or 1 (v2)")
    return V2 in {data_engine, backend_store_driver}


def instance_spec_from_wire(spec: instance_pb2.InstanceSpec) -> ProcessSpec:
    """Return the process to run for a v1 instance.

    Raises:
        InvalidArgumentError: if the spec is not that of a v1 instance.
    """
    if not spec.HasField("process_instance_spec"):
        raise InvalidArgumentError(
            "cannot start a v1 instance without a program: set spec.process_instance_spec.binary"
        )
    kind = parse_instance_type(spec.type) if spec.type else None
    if kind not in {None, *_TYPES}:
        raise InvalidArgumentError(f"cannot start {kind} in v1: it has {' and '.join(_TYPES)} only")
    return ProcessSpec(
        name=spec.name,
        binary=spec.process_instance_spec.binary,
        args=tuple(spec.process_instance_spec.args),
        port_count=spec.port_count,
        port_args=tuple(spec.port_args),
        instance_type=spec.type,
        volume_name=spec.volume_name,
    )


def instance_to_wire(process: Process, *, deleted: bool = False) -> instance_pb2.InstanceResponse:
    """Return a process as an instance."""
    spec, ports = process.spec, process.ports
    kind = type_of_process(spec.name, spec.instance_type)
    first, last = (ports.start, ports.end) if ports else (0, 0)
    # A v1 engine is its own target; a replica has none.
    target_first, target_last = (first, last) if kind is InstanceType.ENGINE else (0, 0)
    return instance_pb2.InstanceResponse(
        spec=instance_pb2.InstanceSpec(
            backend_store_driver=common_pb2.v1,
            data_engine=V1,
            name=spec.name,
            type=kind,
            volume_name=spec.volume_name,
            port_count=spec.port_count,
            port_args=spec.port_args,
            process_instance_spec=instance_pb2.ProcessInstanceSpec(
                binary=spec.binary, args=arguments(spec, ports)
            ),
        ),
        status=instance_pb2.InstanceStatus(
            state=process.state,
            error_msg=process.error_msg,
            port_start=first,
            port_end=last,
            target_port_start=target_first,
            target_port_end=target_last,
            conditions=process.conditions,
            uuid=process.uuid,
        ),
        deleted=deleted,
    )


def serialize_one(process: Process) -> bytes:
    """Return the serialized InstanceResponse for a process."""
    return instance_to_wire(process, deleted=process.deleting).SerializeToString()


def serialize_entry(process: Process) -> bytes:
    """Return a serialized InstanceListResponse with only this process."""
    instance = instance_to_wire(process, deleted=process.deleting)
    return instance_pb2.InstanceListResponse(instances={process.name: instance}).SerializeToString()
