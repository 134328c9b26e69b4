"""What a caller wants to run: validation, and the command line that comes of it."""

from dataclasses import dataclass

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import validate_name
from instance_manager.core.ports import MAX_PORT, PortRange


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run, as the caller gave it."""

    name: str
    binary: str
    args: tuple[str, ...] = ()
    port_count: int = 0
    port_args: tuple[str, ...] = ()
    instance_type: str = ""
    """What it was created as, engine or replica; empty if only its name tells."""


def validate_spec(spec: ProcessSpec) -> None:
    """Check everything about a spec that can be checked without looking at the machine.

    Raises:
        InvalidArgumentError: naming the field and what it takes.
    """
    validate_name(spec.name)
    if not spec.binary:
        raise InvalidArgumentError("cannot start a process without a binary: set spec.binary")
    if any("\0" in word for word in (spec.binary, *spec.args, *spec.port_args)):
        raise InvalidArgumentError("cannot pass a NUL character: remove it from binary, args and port_args")
    if not 0 <= spec.port_count <= MAX_PORT:
        raise InvalidArgumentError(f"cannot use a port_count of {spec.port_count}: it is 0 to {MAX_PORT}")
    if len(spec.port_args) > spec.port_count:
        raise InvalidArgumentError(
            f"cannot use {len(spec.port_args)} port_args with a port_count of {spec.port_count}: "
            "each takes a port"
        )


def command_line(spec: ProcessSpec, ports: PortRange | None) -> tuple[str, ...]:
    """Return the program and its arguments: `args`, then each of `port_args` with its port.

    The i-th value of `port_args` gets `port_start + i` appended; then a comma in it separates words, so that
    `--listen,0.0.0.0:` becomes `--listen 0.0.0.0:10000`.
    """
    words = [spec.binary, *spec.args]
    if ports is not None:
        for port, arg in zip(range(ports.start, ports.end + 1), spec.port_args, strict=False):
            words += f"{arg}{port}".split(",")
    return tuple(words)
