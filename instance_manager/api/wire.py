"""Conversion between protobuf messages and values of the core."""

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.process import Process
from instance_manager.core.spec import ProcessSpec, arguments
from instance_manager.pb.imrpc import imrpc_pb2 as pb


def process_spec_from_wire(request: pb.ProcessCreateRequest | pb.ProcessReplaceRequest) -> ProcessSpec:
    """Return the spec of a request.

    Raises:
        InvalidArgumentError: if it has none.
    """
    if not request.HasField("spec"):
        raise InvalidArgumentError("cannot start a process without a spec: set spec.name and spec.binary")
    spec = request.spec
    return ProcessSpec(
        name=spec.name,
        binary=spec.binary,
        args=tuple(spec.args),
        port_count=spec.port_count,
        port_args=tuple(spec.port_args),
    )


def process_to_wire(process: Process, *, deleted: bool = False) -> pb.ProcessResponse:
    """Return a process as clients see it."""
    spec, ports = process.spec, process.ports
    return pb.ProcessResponse(
        spec=pb.ProcessSpec(
            name=spec.name,
            binary=spec.binary,
            # As clients know it: what the program has got, and beside it what was asked for.
            args=arguments(spec, ports),
            port_count=spec.port_count,
            port_args=spec.port_args,
        ),
        status=pb.ProcessStatus(
            state=process.state,
            error_msg=process.error_msg,
            port_start=ports.start if ports else 0,
            port_end=ports.end if ports else 0,
            conditions=process.conditions,
            uuid=process.uuid,
        ),
        deleted=deleted,
    )
