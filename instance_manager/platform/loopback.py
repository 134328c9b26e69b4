"""Which addresses only this machine can reach."""

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host: all its addresses are on loopback."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host.strip("[]") or "::", None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)
