"""Two streams of an instance manager as one: events say what has changed, pings that something has."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from instance_manager.client.channel import Stream
from instance_manager.pb.instance_manager.v1.events_pb2 import Event, WatchResponse

_PING_SECONDS = 5.0
"""Between two pings that are passed on where events tell the most: of v1 instances they tell nothing new."""
_UNREAD = 1000
"""Events that are taken in advance."""


async def following(
    pings: Stream[Any], events: Stream[WatchResponse] | None
) -> AsyncGenerator[Event | None, None]:
    """Yield each event, and None for whatever the events do not tell; end when one of the streams ends.

    Args:
        pings: something has changed, however much.
        events: what has changed, of v1 instances; None if there is no such stream, then every ping counts.

    Raises:
        AioRpcError: when a stream is lost.
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
    """Pass pings on, those that come within so many seconds as one."""
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
