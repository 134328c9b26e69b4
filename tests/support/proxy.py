"""A TCP proxy that can go silent, like a network that drops everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards connections to a port until it is cut; then both ends stay open and hear nothing more."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._ends: list[asyncio.StreamWriter] = []
        self._forwarding: set[asyncio.Task[None]] = set()
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a new connection."""
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._ends += writer, there_writer
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
            sink.close()
        except ConnectionError:
            sink.close()

    async def cut(self) -> None:
        """Forward nothing any more."""
        for task in tuple(self._forwarding):
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    async def close(self) -> None:
        """Close all connections."""
        await self.cut()
        for end in self._ends:
            end.close()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a port."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
