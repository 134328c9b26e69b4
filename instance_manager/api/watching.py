"""Sending changes to a watcher, who may stop reading at any time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from instance_manager.api.methods import Context
from instance_manager.app.events import EventLog, LaggedError, Subscription


@asynccontextmanager
async def watching(events: EventLog, context: Context, advice: str) -> AsyncIterator[Subscription]:
    """Subscribe for the time of the block; one who does not read is cut off with RESOURCE_EXHAUSTED.

    Args:
        events: to subscribe to.
        context: of the call.
        advice: what a watcher that was cut off has to do to be in step again.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler always runs in one
    with events.subscribe() as changes:
        # A watcher that does not read leaves this task stuck in a write.
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
