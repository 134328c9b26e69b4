"""The watch streams of the SPDK service, one for each type of instance, which are reopened when they end."""

import asyncio
import functools
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import empty_pb2

from instance_manager.adapters.spdk.channel import SpdkChannel
from instance_manager.adapters.spdk.wire import KINDS
from instance_manager.core.instance import InstanceType
from instance_manager.platform.background import Background
from instance_manager.platform.backoff import exponential_backoff

log = structlog.get_logger(__name__)

WORK = "spdk-watch"
"""Name of this background work."""
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
"""Seconds between attempts to open a stream; the delay doubles from the first to the longest."""
UNKNOWN_DELAY = 60.0
"""Seconds until a stream that the SPDK service does not support is tried again."""
SETTLED = 1.0
"""Seconds after which a stream that has not failed counts as open; servers may send nothing at first."""


class SpdkWatch:
    """Calls a function whenever an instance of the SPDK service may have changed."""

    def __init__(self, channel: SpdkChannel, ping: Callable[[], None], background: Background) -> None:
        self._channel = channel
        self._background = background
        self._ping = ping
        self._report: Callable[[bool], None] = lambda _: None
        self._tasks: list[asyncio.Task[None]] = []
        self._streaming: set[InstanceType] = set()
        """Those whose streams are open now."""
        self.opened = dict.fromkeys(InstanceType, 0)
        """How often each stream has been opened."""

    def open(self, report: Callable[[bool], None] = lambda _: None) -> None:
        """Start watching; `report` is called with whether the service is there, now and when that changes."""
        self._report = report
        report(False)
        self._tasks = [
            self._background.run(WORK, functools.partial(self._watch, kind)) for kind in InstanceType
        ]

    async def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, kind: InstanceType) -> None:
        delays, healthy = exponential_backoff(FIRST_DELAY, LONGEST_DELAY), True
        while True:
            begin = time.monotonic()
            code = await self._stream(kind)
            self._set_streaming(self._streaming - {kind})
            lasted = time.monotonic() - begin
            if lasted > LONGEST_DELAY:
                delays, healthy = exponential_backoff(FIRST_DELAY, LONGEST_DELAY), True
            if healthy:
                log.warning("watch of v2 instances has ended, opening it again", type=kind, code=code.name)
                healthy = False
                self._ping()
            delay = UNKNOWN_DELAY if code is grpc.StatusCode.UNIMPLEMENTED else next(delays)
            # In an upgrade, all daemons of a cluster may lose their service at once: spread them out.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    async def _stream(self, kind: InstanceType) -> grpc.StatusCode:
        """Read a stream to its end and return how it ended."""
        call = self._channel.stream(f"{KINDS[kind].prefix}Watch", empty_pb2.Empty())
        settled = self._background.start(WORK, self._settle(kind, call))
        try:
            async for _ in call:
                self._ping()
        except grpc.aio.AioRpcError as error:
            return error.code()
        finally:
            settled.cancel()
            call.cancel()
        return grpc.StatusCode.OK

    async def _settle(self, kind: InstanceType, call: Any) -> None:
        """Ping once the stream is open, since changes before that were not reported."""
        # A server may send its headers only with its first ping.
        with suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(SETTLED):
                await call.initial_metadata()
        await self._channel.ready()
        if not call.done():
            self.opened[kind] += 1
            self._set_streaming(self._streaming | {kind})
            log.info("watching v2 instances", type=kind)
            self._ping()

    def _set_streaming(self, kinds: set[InstanceType]) -> None:
        before, self._streaming = self._streaming, kinds
        if bool(before) is not bool(kinds):
            self._report(bool(kinds))
