"""The specification of a process: validation, and the resulting command line."""

from dataclasses import dataclass

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import MAX_NAME_LENGTH, validate_name
from instance_manager.core.ports import MAX_PORT, PortRange

MAX_WORDS = 1024
"""Largest number of words in a command line."""
MAX_COMMAND_BYTES = 128 * 1024 - 1
"""Largest number of bytes of all words together; as many as the kernel allows for a single word."""
MAX_BINARY_BYTES = 4095
"""PATH_MAX without the byte that ends a path."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run, as given by the caller."""

    name: str
    binary: str
    args: tuple[str, ...] = ()
    port_count: int = 0
    port_args: tuple[str, ...] = ()
    instance_type: str = ""
    """The type it was created with, engine or replica; empty if the type follows from the name."""
    volume_name: str = ""
    """Volume it belongs to, empty if the creator gave none; shown when it is listed."""


def validate_spec(spec: ProcessSpec) -> None:
    """Check everything about a spec that can be checked without looking at the machine.

    Raises:
        InvalidArgumentError: if a field is wrong; the message names it and its valid values.
    """
    validate_name(spec.name)
    if not spec.binary:
        raise InvalidArgumentError("cannot start a process without a binary: set spec.binary")
    _validate_size(spec)
    if any("\0" in word for word in (spec.binary, *spec.args, *spec.port_args)):
        raise InvalidArgumentError("cannot pass a NUL character: remove it from binary, args and port_args")
    if not 0 <= spec.port_count <= MAX_PORT:
        raise InvalidArgumentError(f"cannot use a port_count of {spec.port_count}: it is 0 to {MAX_PORT}")
    if len(spec.volume_name) > MAX_NAME_LENGTH:
        raise InvalidArgumentError(
            f"cannot use a volume_name of {len(spec.volume_name)} characters: {MAX_NAME_LENGTH} is the most "
            "there may be"
        )
    if len(spec.port_args) > spec.port_count:
        raise InvalidArgumentError(
            f"cannot use {len(spec.port_args)} port_args with a port_count of {spec.port_count}: "
            "each takes a port"
        )


def _validate_size(spec: ProcessSpec) -> None:
    length = _length(spec.binary)
    if length > MAX_BINARY_BYTES:
        raise InvalidArgumentError(
            f"cannot use a binary of {length} bytes: {MAX_BINARY_BYTES} is the most a path may have"
        )
    words = 1 + len(spec.args) + sum(arg.count(",") + 1 for arg in spec.port_args)
    if words > MAX_WORDS:
        raise InvalidArgumentError(
            f"cannot use a command line of {words} words: {MAX_WORDS} is the most there may be; "
            "shorten args and port_args"
        )
    size = command_bytes(spec)
    if size > MAX_COMMAND_BYTES:
        raise InvalidArgumentError(
            f"cannot use a command line of {size} bytes: {MAX_COMMAND_BYTES} is the most there may be; "
            "shorten args and port_args, or give the program a file to read"
        )


def command_bytes(spec: ProcessSpec) -> int:
    """Return the number of bytes of all words of a spec."""
    return sum(map(_length, (spec.binary, *spec.args, *spec.port_args)))


def _length(word: str) -> int:
    return len(word.encode(errors="surrogatepass"))


def command_line(spec: ProcessSpec, ports: PortRange | None) -> tuple[str, ...]:
    """Return the program and its arguments: `args`, then each of `port_args` with its port.

    The i-th value of `port_args` gets `port_start + i` appended; then a comma in it separates words, so that
    `--listen,0.0.0.0:` becomes `--listen 0.0.0.0:10000`.
    """
    return spec.binary, *arguments(spec, ports)


def arguments(spec: ProcessSpec, ports: PortRange | None) -> list[str]:
    """Return the arguments of the program: `args` as they were given, until there are ports."""
    words = list(spec.args)
    if ports is not None:
        for port, arg in zip(range(ports.start, ports.end + 1), spec.port_args, strict=False):
            words += f"{arg}{port}".split(",")
    return words
