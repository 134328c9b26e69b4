"""Sending changes to a watcher, which may stop reading at any time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from instance_manager.api.service import Context
from instance_manager.app.broadcast import LaggedError, Subscription
from instance_manager.app.events import EventLog
from instance_manager.core.change import Change


@asynccontextmanager
async def watching(events: EventLog, context: Context, advice: str) -> AsyncIterator[Subscription[Change]]:
    """Subscribe for the duration of the block; a watcher that does not read gets RESOURCE_EXHAUSTED.

    Args:
        events: the event log.
        context: the context of the call.
        advice: what a watcher that was cut off should do next.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler always runs in one
    with events.subscribe() as changes:
        # If the watcher does not read, this task is blocked in a write.
        changes.on_lag = task.cancel
        try:
            yield changes
        except (LaggedError, asyncio.CancelledError):
            if not changes.lagged:
                raise
            task.uncancel()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"too many changes were left unread: {advice}"
            )
