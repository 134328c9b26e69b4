"""Who makes a call: the name in the certificate, the address, or the processes behind a Unix socket."""

import functools
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc.aio

from instance_manager.core.x509 import Holder, holder_of

Context = grpc.aio.ServicerContext[Any, Any]

_CREDENTIALS = struct.Struct("3i")
_FRESH_SECONDS = 0.1
_LONGEST_NAME = 253
UNKNOWN = "unix socket, unknown process"


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """The process that connected to a Unix socket, as the kernel recorded it at that time."""

    pid: int
    """0 for a process in another PID namespace."""
    uid: int
    gid: int


class Callers:
    """Finds out who makes calls; under load it looks at the descriptors only once in a while."""

    def __init__(self, no_sockets: Callable[[], Container[int]] = tuple) -> None:
        """Skip the descriptors that `no_sockets` returns, which are known not to be sockets."""
        self._no_sockets = no_sockets
        self._peers = ""
        self._fresh_until = 0.0

    def who(self, context: Context) -> str:
        """Return who makes a call, in a few words for a log.

        With certificates, this is the name in the client's certificate and its address; without, the address
        alone. gRPC does not reveal by which connection to a Unix socket a call came, so all connected
        processes are named. The caller is one of them, unless it has connected within a tenth of a second
        after the last look.
        """
        kind, _, address = unquote(context.peer()).partition(":")
        names = certificate_names(context)
        peer = self._connected() if kind == "unix" else address
        return f"{printable(names[0])} at {peer}" if names else peer

    def _connected(self) -> str:
        now = time.monotonic()
        if now >= self._fresh_until:
            try:
                self._peers = _describe(sorted(set(unix_peers(self._no_sockets()))))
            except OSError:  # no descriptor is left to look with; a call is audited all the same
                return UNKNOWN
            # With 1,000 descriptors a look takes some 3 ms.
            self._fresh_until = time.monotonic() + _FRESH_SECONDS
        return self._peers


def certificate_names(context: Context) -> list[str]:
    """Return the names in the client's certificate, DNS names first; none without a certificate."""
    holder = certificate_holder(context)
    return list(holder.names) if holder else []


def certificate_holder(context: Context) -> Holder | None:
    """Return who the client's certificate is about; None without one, or if it cannot be read."""
    (pem,) = context.auth_context().get("x509_pem_cert", ()) or (b"",)
    return _holder(pem) if pem else None


@functools.lru_cache(maxsize=256)
def _holder(pem: bytes) -> Holder | None:
    try:
        return holder_of(pem)
    except ValueError:
        return None


def unix_peers(no_sockets: Container[int] = ()) -> Iterator[Peer]:
    """Yield the peer of each connection to a Unix socket of this process."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a Path for each of a thousand costs
        fd = int(entry)
        if fd in no_sockets:
            continue
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode) and (peer := _peer(fd)):
                yield peer
        except OSError:  # it was closed meanwhile
            continue


def _peer(fd: int) -> Peer | None:
    """Return who is at the other end of a descriptor that a listening Unix socket has accepted."""
    view = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        if view.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) != socket.AF_UNIX:
            return None
        view.getpeername()  # OSError if it has none: it listens, or is only bound
        # What was accepted has the name of the socket that listens.
        if not view.getsockname():
            return None
        raw = view.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return Peer(*_CREDENTIALS.unpack(raw))
    finally:
        # The descriptor is gRPC's, and stays open.
        view.detach()


def printable(name: str) -> str:
    """Return a name with escapes for what is not printable, and at most 253 characters of it."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name[:_LONGEST_NAME])


def _describe(peers: list[Peer]) -> str:
    if not peers:
        return UNKNOWN
    return "unix socket, " + " or ".join(f"pid {peer.pid} uid {peer.uid} gid {peer.gid}" for peer in peers)
