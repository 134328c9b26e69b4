"""Told by the kernel: when a cell becomes empty."""

import asyncio
import os
import select


class EventWatcher:
    """Waits for changes of `cgroup.events` of any number of cells, with one descriptor on the event loop."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._waiting: dict[int, asyncio.Event] = {}

    async def change(self, descriptor: int) -> None:
        """Wait until the file that is open has changed since it was read last."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_changes)
        changed = self._waiting[descriptor] = asyncio.Event()
        self._epoll.register(descriptor, select.EPOLLPRI | select.EPOLLONESHOT)
        try:
            await changed.wait()
        finally:
            del self._waiting[descriptor]
            if self._epoll is not None:
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _on_changes(self) -> None:
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0):
            if descriptor in self._waiting:
                self._waiting[descriptor].set()


def populated(descriptor: int) -> bool:
    """Return whether a process lives in a cell or below it, from its `cgroup.events` that is open.

    Raises:
        OSError: if that cannot be read; ENODEV if there is no such cell any more.
    """
    text = os.pread(descriptor, 4096, 0)
    return b"populated 1" in text
