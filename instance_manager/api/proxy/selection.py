"""Which engine a request means."""

from typing import Any

from google.protobuf.message import Message

from instance_manager.api.size import size_of
from instance_manager.api.subject import subject_of
from instance_manager.app.engine import EngineChange
from instance_manager.core.engine import Engine
from instance_manager.core.engine_address import engine_address
from instance_manager.core.engine_v2 import EngineV2
from instance_manager.core.errors import InvalidArgumentError, UnimplementedError
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import proxy_pb2 as pb

_PART = "proxy_engine_request"


def part(request: Any, name: str) -> Any:
    """Return a message that is a part of a request.

    Raises:
        InvalidArgumentError: if the request lacks it.
    """
    if not request.HasField(name):
        raise InvalidArgumentError(f"cannot read the {request.DESCRIPTOR.name}: {name} is missing")
    return getattr(request, name)


def v1_engine(request: Any) -> Engine:
    """Return the engine of a request, which may be ProxyEngineRequest itself or has one.

    Raises:
        InvalidArgumentError: if no engine is named, or not in a way that can be used.
        UnimplementedError: if it is not one of the v1 data engine.
    """
    which = _which(request)
    engine = which.data_engine
    if engine == common_pb2.DATA_ENGINE_V2:
        raise UnimplementedError(
            "unsupported data engine DATA_ENGINE_V2: it is switched off; start the daemon with --spdk-enabled"
        )
    if engine != common_pb2.DATA_ENGINE_V1:
        raise UnimplementedError(f"unsupported data engine {engine}")
    return any_engine(which)


def is_v2(request: Any) -> bool:
    """Return whether a request means an engine of the v2 data engine; not if it names none."""
    which = request if isinstance(request, pb.ProxyEngineRequest) else getattr(request, _PART, None)
    return which is not None and which.data_engine == common_pb2.DATA_ENGINE_V2


def v2_engine(request: Any) -> EngineV2:
    """Return the v2 engine of a request; its SPDK service is where the engine is.

    Raises:
        InvalidArgumentError: if the address cannot be used.
    """
    which = _which(request)
    return EngineV2(
        host=engine_address(which.address).host if which.address else "",
        volume=which.volume_name,
        name=which.engine_name,
        frontend=which.engine_frontend_name,
    )


def required(request: Any, *fields: str) -> None:
    """Check that fields are set.

    Raises:
        InvalidArgumentError: if one of them is empty.
    """
    for field in fields:
        if not getattr(request, field):
            raise InvalidArgumentError(f"cannot read the {request.DESCRIPTOR.name}: {field} is empty; set it")


def any_engine(request: Any) -> Engine:
    """Return the engine of a request, whatever its data engine is.

    Raises:
        InvalidArgumentError: if no engine is named, or not in a way that can be used.
    """
    which = _which(request)
    return Engine(
        # Without an address, the call fails like any other to nobody, which is what managers know.
        address=str(engine_address(which.address)) if which.address else "",
        volume=metadata_value("volume_name", which.volume_name),
        name=metadata_value("engine_name", which.engine_name),
    )


def change_of(method: str, request: Message) -> EngineChange:
    """Return which change a request is; it has been found to name an engine, or is about none.

    Args:
        method: name of the method.
        request: what it was asked.
    """
    subject = subject_of(request)
    if _PART not in request.DESCRIPTOR.fields_by_name and not isinstance(request, pb.ProxyEngineRequest):
        return EngineChange(method, subject=subject, size=size_of(request))
    engine = any_engine(request)
    return EngineChange(method, engine.address, engine.name, subject, size_of(request))


def metadata_value(field: str, value: str) -> str:
    """Return a value that can be sent along with a call.

    Raises:
        InvalidArgumentError: if it cannot.
    """
    if not (value.isascii() and (value.isprintable())):
        raise InvalidArgumentError(f"cannot use the {field} {value!r}: write printable ASCII characters")
    return value


def _which(request: Any) -> pb.ProxyEngineRequest:
    if isinstance(request, pb.ProxyEngineRequest):
        return request
    which: pb.ProxyEngineRequest = part(request, _PART)
    return which
