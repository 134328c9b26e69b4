"""Combines two streams of an instance manager: events say what has changed, pings that something has."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from instance_manager.client.channel import Stream
from instance_manager.pb.instance_manager.v1.events_pb2 import Event, WatchResponse

_PING_SECONDS = 5.0
"""Seconds between two pings that are passed on if there are events, which report v1 instances anyway."""
_UNREAD = 1000
"""Largest number of events read in advance."""


async def merge_streams(
    pings: Stream[Any], events: Stream[WatchResponse] | None
) -> AsyncGenerator[Event | None, None]:
    """Yield each event, and None for changes that events do not report; end when one of the streams ends.

    Args:
        pings: pings for all changes.
        events: changes of v1 instances; None if there is no such stream, and then every ping counts.

    Raises:
        AioRpcError: when the connection is lost.
    """
    merged: asyncio.Queue[Event | None] = asyncio.Queue(_UNREAD)
    readers = {asyncio.create_task(_read_pings(pings, merged, _PING_SECONDS if events else 0.0))}
    if events is not None:
        readers.add(asyncio.create_task(_read_events(events, merged)))
    next_one: asyncio.Task[Event | None] | None = None
    try:
        while True:
            next_one = asyncio.create_task(merged.get())
            done, _ = await asyncio.wait({next_one, *readers}, return_when=asyncio.FIRST_COMPLETED)
            if next_one in done:
                yield next_one.result()
                continue
            next_one.cancel()
            for reader in done:
                await reader  # raises why it was lost
            return
    finally:
        left = readers | {next_one} if next_one else readers
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _read_events(events: Stream[WatchResponse], merged: "asyncio.Queue[Event | None]") -> None:
    async for message in events:
        if message.HasField("event"):
            await merged.put(message.event)


async def _read_pings(pings: Stream[Any], merged: "asyncio.Queue[Event | None]", seconds: float) -> None:
    """Pass pings on, merging those within `seconds`."""
    pending = asyncio.Event()

    async def read() -> None:
        async for _ in pings:
            pending.set()

    reading = asyncio.create_task(read())
    waiting = asyncio.create_task(pending.wait())
    try:
        while not reading.done():
            await asyncio.wait({waiting, reading}, return_when=asyncio.FIRST_COMPLETED)
            if pending.is_set():
                pending.clear()
                waiting = asyncio.create_task(pending.wait())
                await merged.put(None)
                await asyncio.wait({reading}, timeout=seconds)
        await reading
    finally:
        for task in (reading, waiting):
            task.cancel()
        await asyncio.gather(reading, waiting, return_exceptions=True)
