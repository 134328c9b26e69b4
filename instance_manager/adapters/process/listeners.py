"""Who listens on a port: the instance it was allocated to, or somebody else."""

import os
import socket
import struct
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.process.slices import Slices
from instance_manager.app.containment import Cell
from instance_manager.platform.proc import UnreadableError, all_processes, read_stat

log = structlog.get_logger(__name__)

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = b"0A"
"""The state in these tables. The kernel lists what listens before all connections."""
_CHUNK = 1 << 14


def _written(family: socket.AddressFamily, host: str) -> bytes:
    """Return an address as these tables have it: words of 32 bits in the byte order of the machine."""
    packed = socket.inet_pton(family, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words).encode()


_EVERY_IPV6 = _written(socket.AF_INET6, "::")
_ADDRESSES = {
    "127.0.0.1": {
        _written(socket.AF_INET, "127.0.0.1"),
        _written(socket.AF_INET, "0.0.0.0"),  # noqa: S104 - looked for
        _written(socket.AF_INET6, "::ffff:127.0.0.1"),
        _EVERY_IPV6,
    },
    "::1": {_written(socket.AF_INET6, "::1"), _EVERY_IPV6},
}
"""What a listener may be bound to that is reached by an address."""


class ListenerCheck:
    """Finds out whether the listener on a port belongs to an instance.

    It reads nothing that can block: tables of sockets and of descriptors, not the memory of processes.
    """

    def __init__(self, around: Callable[[int], Cell | None] = lambda _: None) -> None:
        """Look at nothing yet; `around` is `app.containment.Containment.around`."""
        self._around = around

    async def stranger(self, port: int, leader: int, host: str = "") -> str:
        """Return in words who listens on a port, if it is certainly not the instance.

        Args:
            port: the port.
            leader: PID of the instance.
            host: the address, `127.0.0.1` or `::1`, by which the port is reached; all if it is empty.

        Returns:
            Empty if a process of the instance listens, or if that cannot be found out.
        """
        try:
            return await self._stranger(port, leader, host)
        except (OSError, UnreadableError) as error:
            log.debug("listener not checked", port=port, reason=str(error))
            return ""

    async def _stranger(self, port: int, leader: int, host: str) -> str:
        inodes = {f"socket:[{inode}]" for inode in _listening(port, host)}
        if not inodes:
            return ""
        cell = self._around(leader)
        if cell is None:
            log.debug("listener not checked: it is not known what belongs to the instance", port=port)
            return ""
        slices = Slices()
        for pid in cell.members():
            await slices.pause()
            if _holds(pid, inodes) is not False:
                return ""
        for pid in all_processes():
            await slices.pause()
            if _holds(pid, inodes):
                stat = read_stat(pid)
                return f"pid {pid} ({stat.command})" if stat and cell.excludes(pid) else ""
        log.debug("listener not checked: whose it is cannot be read", port=port)
        return ""


def _holds(pid: int, sockets: Container[str]) -> bool | None:
    """Return whether a process has one of the sockets open; None if its descriptors cannot be read."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_link(entry.path) in sockets for entry in entries)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - a Path for each descriptor costs
    except OSError:  # closed meanwhile
        return ""


def _listening(port: int, host: str) -> Iterable[int]:
    """Return the inodes of the sockets that listen on a port, at an address of this machine or at any."""
    suffix = f":{port:04X}".encode()
    addresses = _ADDRESSES.get(host)
    found = []
    for table in _TABLES:
        with suppress(OSError), Path(table).open("rb", buffering=_CHUNK) as file:
            next(file, None)  # the heading
            for line in file:
                fields = line.split()
                if fields[3] != _LISTEN:
                    break
                address, _, _ = fields[1].partition(b":")
                if fields[1].endswith(suffix) and (addresses is None or address in addresses):
                    found.append(int(fields[9]))
    return found
