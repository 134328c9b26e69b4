"""Combines two streams of an instance manager: events say what has changed, pings that something has."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from instance_manager.client.channel import Stream
from instance_manager.pb.instance_manager.v1.events_pb2 import Event, WatchResponse

_PING_SECONDS = 5.0
"""Seconds between two pings that are passed on if there are events, which tell about v1 instances anyway."""
_UNREAD = 1000
"""Largest number of events read in advance."""


async def following(
    pings: Stream[Any], events: Stream[WatchResponse] | None
) -> AsyncGenerator[Event | None, None]:
    """Yield each event, and None for changes that events do not report; end when one of the streams ends.

    Args:
        pings: pings for all changes.
        events: changes of v1 instances; None if there is no such stream, and then every ping counts.

    Raises:
        AioRpcError: when the connection is lost.
    """
    told: asyncio.Queue[Event | None] = asyncio.Queue(_UNREAD)
    pumps = {asyncio.create_task(_pass_pings(pings, told, _PING_SECONDS if events else 0.0))}
    if events is not None:
        pumps.add(asyncio.create_task(_pass_events(events, told)))
    next_one: asyncio.Task[Event | None] | None = None
    try:
        while True:
            next_one = asyncio.create_task(told.get())
            done, _ = await asyncio.wait({next_one, *pumps}, return_when=asyncio.FIRST_COMPLETED)
            if next_one in done:
                yield next_one.result()
                continue
            next_one.cancel()
            for pump in done:
                await pump  # raises why it was lost
            return
    finally:
        left = pumps | {next_one} if next_one else pumps
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _pass_events(events: Stream[WatchResponse], told: "asyncio.Queue[Event | None]") -> None:
    async for message in events:
        if message.HasField("event"):
            await told.put(message.event)


async def _pass_pings(pings: Stream[Any], told: "asyncio.Queue[Event | None]", seconds: float) -> None:
    """Pass pings on, merging those within `seconds`."""
    pending = asyncio.Event()

    async def take() -> None:
        async for _ in pings:
            pending.set()

    taking = asyncio.create_task(take())
    waiting = asyncio.create_task(pending.wait())
    try:
        while not taking.done():
            await asyncio.wait({waiting, taking}, return_when=asyncio.FIRST_COMPLETED)
            if pending.is_set():
                pending.clear()
                waiting = asyncio.create_task(pending.wait())
                await told.put(None)
                await asyncio.wait({taking}, timeout=seconds)
        await taking
    finally:
        for task in (taking, waiting):
            task.cancel()
        await asyncio.gather(taking, waiting, return_exceptions=True)
