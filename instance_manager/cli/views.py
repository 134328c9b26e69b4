"""The tables of processes and instances: their columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse
    from instance_manager.pb.imrpc.instance_pb2 import InstanceResponse

Listed = TypeVar("Listed", "ProcessResponse", "InstanceResponse")
Columns = Mapping[str, Callable[[Listed], str]]
"""The content of each column, by header."""


@dataclass(frozen=True, slots=True)
class View(Generic[Listed]):
    """A table, and the additional columns of a wide one."""

    columns: Columns[Listed]
    more: Columns[Listed]

    @property
    def wide(self) -> Columns[Listed]:
        """All columns."""
        return {**self.columns, **self.more}


def state_of(listed: "ProcessResponse | InstanceResponse") -> str:
    """Return the state to show: that of the message, or `deleted` if it has left the list."""
    return "deleted" if listed.deleted else listed.status.state


def engine_of(instance: "InstanceResponse") -> str:
    """Return v1 or v2."""
    return f"v{instance.spec.data_engine + 1}"


def _ports(listed: "ProcessResponse | InstanceResponse") -> str:
    first, last = listed.status.port_start, listed.status.port_end
    return "" if not first else f"{first}" if first == last else f"{first}-{last}"


def _args(process: "ProcessResponse") -> str:
    import shlex

    return shlex.join(process.spec.args)


def _program(instance: "InstanceResponse") -> str:
    import shlex

    program = instance.spec.process_instance_spec
    return shlex.join((program.binary, *program.args)) if program.binary else ""


def _conditions(listed: "ProcessResponse | InstanceResponse") -> str:
    return ",".join(
        f"{name}={str(value).lower()}" for name, value in sorted(listed.status.conditions.items())
    )


PROCESSES: "View[ProcessResponse]" = View(
    {
        "NAME": lambda process: process.spec.name,
        "STATE": lambda process: process.status.state,
        "PORTS": _ports,
        "UUID": lambda process: process.status.uuid,
    },
    {
        "BINARY": lambda process: process.spec.binary,
        "ARGS": _args,
        "ERROR": lambda process: process.status.error_msg,
        "CONDITIONS": _conditions,
    },
)
INSTANCES: "View[InstanceResponse]" = View(
    {
        "NAME": lambda instance: instance.spec.name,
        "TYPE": lambda instance: instance.spec.type,
        "ENGINE": engine_of,
        "STATE": lambda instance: instance.status.state,
        "PORTS": _ports,
        "UUID": lambda instance: instance.status.uuid,
    },
    {
        "VOLUME": lambda instance: instance.spec.volume_name,
        "ENDPOINT": lambda instance: instance.status.endpoint,
        "PROGRAM": _program,
        "ERROR": lambda instance: instance.status.error_msg,
        "CONDITIONS": _conditions,
    },
)
