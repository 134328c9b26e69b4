"""The composition root of the orphan agent: puts its parts together, starts and stops them."""

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from instance_manager.client import Client
from instance_manager.orphans.agent import OrphanAgent
from instance_manager.orphans.cache import identity_warning, other_names
from instance_manager.orphans.instance_managers import GrpcInstanceManager
from instance_manager.orphans.interfaces import CannotReadError
from instance_manager.orphans.model import Resolution
from instance_manager.orphans.owners import FileOwners
from instance_manager.orphans.records import AgentInfo, SqliteRecords
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.platform.clock import SteadyClock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """All settings of the agent."""

    targets: Mapping[str, str]
    """URL of each instance manager by the name that its owners use for it."""
    owners: Path
    """File, or directory of files, with the owners."""
    records: Path
    orphans: OrphanSettings


class MisnamedError(Exception):
    """Owners use another name for an instance manager than the one it was given; the message says which."""


def run(settings: AgentSettings, connect: Callable[[str], Client] = Client) -> None:
    """Look for orphans until SIGTERM or SIGINT.

    Args:
        settings: all settings.
        connect: returns a client for a URL; raises CannotReadError if the certificates cannot be used.

    Raises:
        CannotReadError: if the records or the certificates cannot be used.
        MisnamedError: if auto-deletion is on and the name of an instance manager is probably wrong.
    """
    asyncio.run(serve(settings, connect))


async def serve(settings: AgentSettings, connect: Callable[[str], Client]) -> None:
    """Look for orphans on the running event loop; see `run`."""
    async with AsyncExitStack() as stack:
        records = SqliteRecords(settings.records, agent=True)
        stack.callback(records.close)
        records.open()
        await records.set_agent_info(
            AgentInfo(str(settings.owners), settings.targets, started=time.time(), pid=os.getpid())
        )
        managers = []
        for name, url in settings.targets.items():
            managers.append(GrpcInstanceManager(name, functools.partial(connect, url)))
            stack.push_async_callback(managers[-1].close)
        owners = FileOwners(settings.owners)
        await _close_unfollowed(records, settings.targets)
        if settings.orphans.auto_deletion:
            await _check_names(managers, owners)
        agent = OrphanAgent(
            settings.orphans, owners=owners, records=records, managers=managers, clock=SteadyClock()
        )
        task = asyncio.ensure_future(agent.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        log.info(
            "looking for orphans",
            targets=dict(settings.targets),
            owners=str(settings.owners),
            records=str(settings.records),
            auto_deletion=settings.orphans.auto_deletion,
            pid=os.getpid(),
        )
        with contextlib.suppress(asyncio.CancelledError):
            await task
        log.info("stopped")


async def _close_unfollowed(records: SqliteRecords, targets: Mapping[str, str]) -> None:
    """Close the records of instance managers that an earlier agent followed and this one does not."""
    for record in await records.list():
        if record.manager not in targets:
            outcome = "its instance manager is no longer followed"
            await records.remove(record.close(Resolution.MANAGER_LEFT, time.time(), outcome))
            log.info("orphan record ended", record=record.name, name=record.instance.name, outcome=outcome)


async def _check_names(managers: Sequence[GrpcInstanceManager], owners: FileOwners) -> None:
    """Check that owners use the names that the instance managers were given.

    The agent itself checks those that do not answer now, and those that owners call by another followed name.

    Raises:
        MisnamedError: if they do not.
    """
    try:
        owned = {owner.name: owner for owner in await owners.list_live()}
    except CannotReadError:
        return
    answers = await asyncio.gather(*(manager.list_live() for manager in managers), return_exceptions=True)
    known = {
        manager.name: None if isinstance(answer, BaseException) else {each.name: each for each in answer}
        for manager, answer in zip(managers, answers, strict=True)
    }
    for name in known:
        others = other_names(name, known, owned)
        if others and not others & set(known):
            raise MisnamedError(
                f"cannot delete orphans automatically: {identity_warning(name, others)} If so, start without "
                "--auto-delete, or follow that one too"
            )
