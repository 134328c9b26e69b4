"""The stub's listening socket, and its clients until they say something."""

import socket

from instance_manager.stub.loop import READ, Loop

BACKLOG = 128
GREETING_BYTES = 65536


class AddressError(Exception):
    """The address to listen on is malformed, unknown or taken; the message is for the user."""


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT; brackets around the host are dropped, an empty host means every interface.

    Raises:
        AddressError: It is not HOST:PORT.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"cannot listen on {address!r}: IPv6 addresses are written as [::1]:10000")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:  # noqa: PLR2004 - ports
        raise AddressError(f"cannot listen on {address!r}: it is not HOST:PORT")
    return host or "0.0.0.0", int(port)  # noqa: S104 - as an instance listens


class Listener:
    """Accepts clients and hands each one that sends anything to a health session."""

    def __init__(self, loop: Loop, address: str, *, serving: bool) -> None:
        """Start to listen.

        Raises:
            AddressError: The address cannot be used.
        """
        self._loop = loop
        self._serving = serving
        host, port = split_address(address)
        try:
            self._sock = _bound_socket(host, port)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise AddressError(f"cannot listen on {address!r}: {reason}") from error
        # the port as bound: it differs from the one asked for if that was 0
        self.address = f"{address.rpartition(':')[0]}:{self._sock.getsockname()[1]}"
        loop.watch(self._sock.fileno(), READ, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._sock.accept()
        except OSError:  # it left already, or there are no descriptors left for it
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.watch(client.fileno(), READ, lambda: self._greet(client))

    def _greet(self, client: socket.socket) -> None:
        try:
            data = client.recv(GREETING_BYTES)
        except OSError:
            data = b""
        if not data:
            self._loop.watch(client.fileno(), 0, self._accept)
            client.close()
            return
        from instance_manager.stub.session import Session  # noqa: PLC0415 - its docstring says why

        Session(self._loop, client, serving=self._serving).receive(data)


def _bound_socket(host: str, port: int) -> socket.socket:
    # bytes, since for a str getaddrinfo loads the tables of internationalized names
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # one socket, IPv4 if there is a choice: as Go listens on a name
    family, kind, protocol, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
