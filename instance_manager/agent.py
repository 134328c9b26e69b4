"""The agent that looks for orphans: the one place where its parts are put together."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from instance_manager.adapters.orphan_records import Sources, SqliteRecords
from instance_manager.adapters.owners import FileOwners
from instance_manager.app.interfaces import Cancellable
from instance_manager.app.orphans.agent import OrphanAgent
from instance_manager.app.orphans.settings import OrphanSettings
from instance_manager.client import Client
from instance_manager.client.source import GrpcInstanceManager

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything a person can set."""

    targets: Mapping[str, str]
    """URL of each instance manager by the name that owners know it by."""
    owners: Path
    """File, or directory with files, of the owners."""
    records: Path
    orphans: OrphanSettings


class LoopClock:
    """Real time; implements `app.interfaces.Clock`."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds."""
        return asyncio.get_running_loop().call_later(delay, action)


def run(settings: AgentSettings, connect: Callable[[str], Client] = Client) -> None:
    """Look for orphans until a signal says otherwise.

    Args:
        settings: that a person has chosen.
        connect: makes the client of a URL.

    Raises:
        CannotReadError: if the records cannot be used at all.
    """
    asyncio.run(serve(settings, connect))


async def serve(settings: AgentSettings, connect: Callable[[str], Client]) -> None:
    """Look for orphans on the running event loop; see `run`."""
    async with AsyncExitStack() as stack:
        records = SqliteRecords(settings.records, agent=True)
        stack.callback(records.close)
        records.open()
        await records.set_sources(
            Sources(str(settings.owners), settings.targets, started=time.time(), pid=os.getpid())
        )
        managers = [
            GrpcInstanceManager(name, await stack.enter_async_context(connect(url)))
            for name, url in settings.targets.items()
        ]
        agent = OrphanAgent(
            settings.orphans,
            owners=FileOwners(settings.owners),
            records=records,
            managers=managers,
            clock=LoopClock(),
        )
        work = asyncio.ensure_future(agent.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        log.info(
            "looking for orphans",
            targets=dict(settings.targets),
            owners=str(settings.owners),
            records=str(settings.records),
            auto_deletion=settings.orphans.auto_deletion,
            pid=os.getpid(),
        )
        with contextlib.suppress(asyncio.CancelledError):
            await work
        log.info("stopped")
