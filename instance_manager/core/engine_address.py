"""Addresses of engines and replicas, as managers and engines write them."""

import re

from instance_manager.core.addresses import Address, parse_address
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import MAX_PORT

SYNC_AGENT_OFFSET = 2
"""How far above the port of a replica its sync agent listens."""
_HOST = re.compile(r"[0-9A-Za-z._:%-]+")
_SCHEME = re.compile(r"\A(?:tcp|http)://")


def engine_address(text: str, offset: int = 0) -> Address:
    """Read the address of an engine or a replica: HOST:PORT, tcp:// or http:// before it, a path behind it.

    Args:
        text: what was written.
        offset: is added to the port.

    Raises:
        InvalidArgumentError: if it is none.
    """
    host_port, _, _ = _SCHEME.sub("", text).partition("/")
    try:
        address = parse_address(host_port).shifted(offset)
    except InvalidArgumentError:
        address = Address()
    if not _HOST.fullmatch(address.host) or not 0 < address.port <= MAX_PORT:
        raise InvalidArgumentError(f"cannot use the address {text!r}: write HOST:PORT or [IPV6]:PORT")
    return address
