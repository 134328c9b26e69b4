"""Listening on every address that a host has, and on no part of them."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog

from instance_manager.core.addresses import Address

log = structlog.get_logger(__name__)

_LOOPBACKS = ("127.0.0.1", "::1")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with what the caller has chosen
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What a machine answers for an address, or a family of addresses, that it does not have."""
_ATTEMPTS = 50
"""Ports that are tried if any will do, and another program has it on another address of the host."""


class AddressError(Exception):
    """The address cannot be listened on; the message says why."""


class AddressInUseError(AddressError):
    """Another program listens on the address, or on one of those that a host has."""


@contextmanager
def reserve(address: Address, option: str) -> Iterator[list[socket.socket]]:
    """Bind a socket to each address of a host for the duration of the block; none of them listens.

    Meanwhile, sockets with SO_REUSEADDR may be bound there, too, and listen. Addresses that this machine does
    not have are left out, which is logged.

    Args:
        address: host and port; port 0 is any that is free on all of them.
        option: the option of the command line that chooses another address, for messages.

    Raises:
        AddressInUseError: if another program listens on one of them.
        AddressError: if the host has no address, or none on this machine, or the port is not allowed.
    """
    hosts = _resolve(address, option)
    for left in reversed(range(1 if address.port else _ATTEMPTS)):
        with ExitStack() as opened:
            try:
                sockets = _bind(address, hosts, option, opened)
            except AddressInUseError:
                if left:
                    continue
                raise
            yield sockets
            return


def port_is_free(port: int) -> bool:
    """Return whether a program could listen on a port, whatever address of this machine it takes.

    If that cannot be found out, the port counts as free.
    """
    for family, host in ((socket.AF_INET6, "::"), (socket.AF_INET, "")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # and with it those of IPv4
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in _ABSENT:
                continue
            return error.errno != errno.EADDRINUSE
        break
    return True


def address_of(listener: socket.socket) -> Address:
    """Return the address that a socket is bound to."""
    host, port, *rest = listener.getsockname()
    scope = rest[1] if rest else 0
    return Address(f"{host}%{socket.if_indextoname(scope)}" if scope and "%" not in host else host, port)


def _resolve(address: Address, option: str) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Return family and socket address of each address of a host, without port."""
    hosts: tuple[str, ...] = (address.host,)
    if address.host in {"", "::"}:
        hosts = _WILDCARDS
    elif address.host.casefold() == "localhost":  # RFC 6761: whatever the files of this machine say
        hosts = _LOOPBACKS
    try:
        found = [info for host in hosts for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise AddressError(
            f"cannot listen on {address}: {reason}; choose another address with {option}"
        ) from error
    return list(dict.fromkeys((info[0], info[4]) for info in found))


def _bind(
    address: Address,
    hosts: list[tuple[socket.AddressFamily, tuple[object, ...]]],
    option: str,
    opened: ExitStack,
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port = address.port
    for family, (host, _, *scope) in hosts:
        each = Address(str(host), port)
        try:
            bound = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host, port, *scope))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUseError(
                    f"cannot listen on {address}: {each} is in use by another program; end it, or "
                    f"choose another address with {option}"
                ) from error
            if error.errno not in _ABSENT:
                reason = (error.strerror or str(error)).lower()
                raise AddressError(
                    f"cannot listen on {each}: {reason}; choose another address with {option}"
                ) from error
            log.info("address left out: this machine does not have it", host=address.host, address=str(each))
            continue
        port = bound.getsockname()[1]
        sockets.append(bound)
    if not sockets:
        raise AddressError(
            f"cannot listen on {address}: it is not an address of this machine; choose another with {option}"
        )
    return sockets
