"""The address of the HTTP server."""

from dataclasses import dataclass

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import MAX_PORT


class EndpointError(Exception):
    """The address cannot be listened on; the message says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port."""

    host: str
    """Name or address; empty: every address of this machine."""
    port: int
    """0: any that is free."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read HOST:PORT; an IPv6 address must be in brackets.

    Raises:
        InvalidArgumentError: if the text is malformed.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        colon
        and port.isascii()
        and port.isdecimal()
        and int(port) <= MAX_PORT
        and bracketed == (":" in host)
        and "/" not in host
    ):
        return Endpoint(host[1:-1] if bracketed else host, int(port))
    raise InvalidArgumentError(
        f"cannot use the address {text!r} for metrics: write HOST:PORT or [IPV6]:PORT, or nothing for none"
    )
