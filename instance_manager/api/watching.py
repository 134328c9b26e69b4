"""Sending changes to a watcher, which may stop reading at any time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

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
    with events.subscribe() as changes:
        try:
            yield changes
        except (LaggedError, asyncio.CancelledError):
            if not changes.lagged:
                raise
            _task().uncancel()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"too many changes were left unread: {advice}"
            )


async def accept(context: Context, changes: Subscription[Change]) -> None:
    """Send the headers, which mean to the client that it misses nothing from here on."""
    await context.send_initial_metadata(())
    # If the watcher does not read, this task is blocked in a write. Not before: headers cannot be sent twice.
    changes.on_lag = _task().cancel


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler always runs in one
    return task
