"""What the daemon serves where: a listener for each port that clients know, by its distance from --listen."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from instance_manager.api.service import Service
from instance_manager.core.addresses import Address, parse_address
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import MAX_PORT
from instance_manager.platform.listening import AddressError
from instance_manager.platform.loopback import is_loopback


class Offset(IntEnum):
    """How far above the port of `--listen` clients expect each service."""

    PROCESS = 0
    PROXY = 1
    DISK = 2
    INSTANCE = 3


@dataclass(frozen=True, slots=True)
class Listener:
    """A port, and the services on it; health and reflection are on every one."""

    offset: Offset
    services: tuple[Service, ...]


def listen_address(text: str) -> Address:
    """Read the address of the first listener, whose port leaves room for those of the others.

    Raises:
        InvalidArgumentError: if it is none; the message says what to write.
    """
    address = parse_address(text)
    last = max(Offset)
    if address.shifted(last).port > MAX_PORT:
        raise InvalidArgumentError(
            f"cannot use the address {text!r}: the daemon takes the {last} ports above, too; "
            f"write a port up to {MAX_PORT - last}"
        )
    return address


def ports(address: Address) -> Iterator[int]:
    """Yield the ports of all listeners; none for a Unix socket, or if any free ports will do."""
    if address.port:
        yield from (address.shifted(offset).port for offset in Offset)


def refuse_exposed(address: Address) -> None:
    """Refuse to serve plain text on an address that other machines can reach.

    Raises:
        AddressError: if the address is neither on loopback nor a Unix socket.
    """
    if not address.path and not is_loopback(address.host):
        raise AddressError(
            f"cannot serve plain text on {address.target}: whoever reaches it could start programs here; "
            "set --tls-dir to a directory with certificates, listen on localhost or a Unix socket, "
            "or allow it with --insecure"
        )
