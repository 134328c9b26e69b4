"""Addresses as people write them: HOST:PORT, or the path of a Unix socket."""

import re
from dataclasses import dataclass, replace

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import MAX_PORT

_TCP = re.compile(r"(?:tcp://)?(?:\[(?P<ipv6>[^][/]*:[^][/]*)\]|(?P<host>[^][:/]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port, or the path of a Unix socket."""

    host: str = ""
    """Name or address, IPv6 without brackets; empty: every address of this machine."""
    port: int = 0
    """0: any that is free."""
    path: str = ""
    """Of the Unix socket; empty if it is a host and a port."""

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"{self._host}:{self.port}"

    @property
    def target(self) -> str:
        """The address as a gRPC target."""
        return f"unix:{self.path}" if self.path else f"{self._host or '[::]'}:{self.port}"

    def shifted(self, offset: int) -> "Address":
        """Return the address with `offset` added to the port; port 0, any free port, stays 0."""
        return replace(self, port=self.port + offset) if self.port else self

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_address(text: str) -> Address:
    """Read HOST:PORT or tcp://HOST:PORT, with an IPv6 address in brackets, unix:PATH or unix://PATH.

    Raises:
        InvalidArgumentError: if it is none of these.
    """
    if text.startswith("unix:"):
        if path := text.removeprefix("unix:").removeprefix("//"):
            return Address(path=path)
    elif (tcp := _TCP.fullmatch(text)) and int(tcp["port"]) <= MAX_PORT:
        return Address(tcp["ipv6"] or tcp["host"] or "", int(tcp["port"]))
    raise InvalidArgumentError(
        f"cannot use the address {text!r}: write HOST:PORT, [IPV6]:PORT or unix://PATH"
    )
