"""The daemon: the one place where its parts are put together."""

import asyncio
import gc
import os
import resource
import signal
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvloop

from instance_manager.adapters.journal import SqliteJournal, StateDir, boot_id
from instance_manager.adapters.logs import EchoSink, LogFiles
from instance_manager.adapters.mounts import MountWatcher
from instance_manager.adapters.process import ProcessSpawner, ProcessSurvivors
from instance_manager.adapters.readiness import HealthProbe
from instance_manager.api import event_service, instance_service, process_service
from instance_manager.api.event_service import EventService
from instance_manager.api.instance_service import InstanceService
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.process_service import ProcessService
from instance_manager.api.server import INSTANCE_SERVICE_OFFSET, Address, GrpcServer
from instance_manager.app.events import EventLog
from instance_manager.app.interfaces import Cancellable
from instance_manager.app.pings import Pings
from instance_manager.app.recovery import Recovery
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Settings, Supervisor
from instance_manager.core.process import Process
from instance_manager.log import control as log_control

log = structlog.get_logger(__name__)

JOURNAL_HEALTH = "journal"
"""Name under which the health service tells whether the journal is written."""
_RPC_GRACE = 2.0
"""Seconds that calls under way get after the last process has ended."""


class OnStop(StrEnum):
    """What becomes of the processes when the daemon is asked to end."""

    TERMINATE = auto()
    """They end with it."""
    LEAVE = auto()
    """They live on and the next daemon takes them over."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """Everything a person can set."""

    listen: Address
    logs_dir: Path
    supervision: Settings
    shutdown_grace: float
    """Seconds from the begin of a shutdown to SIGKILL."""
    log_max_size: int
    """Bytes a log file may have."""
    echo_logs: bool
    state_dir: Path
    """Where the journal and the guard's records are; one daemon at a time."""
    on_stop: OnStop


class LoopClock:
    """Real time; implements `app.interfaces.Clock`."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds."""
        loop = asyncio.get_running_loop()
        return loop.call_later(delay, action) if delay > 0 else loop.call_soon(action)


def run(settings: DaemonSettings) -> int:
    """Serve until a signal says otherwise.

    Returns:
        0 after a clean end, 1 if processes were left that could not be ended.

    Raises:
        AddressError: if an address cannot be listened on.
        StateDirError: if the state directory cannot be used.
    """
    _raise_descriptor_limit()
    # What was loaded at the start is never garbage: leave it out of every collection.
    gc.freeze()
    work: Coroutine[Any, Any, int] = serve(settings)
    return uvloop.run(work)


async def serve(settings: DaemonSettings) -> int:
    """Serve on the running event loop; see `run`."""
    async with AsyncExitStack() as stack:
        state_dir = StateDir(settings.state_dir)
        state_dir.open()
        stack.callback(state_dir.close)
        journal = SqliteJournal(state_dir.journal, boot_id())
        records = journal.open()
        stack.callback(journal.close)
        parts = _assemble(settings, state_dir, journal)
        server = GrpcServer(parts.services)
        _report_health(journal, parts.supervisor, server)

        stop = _StopSignal(parts.supervisor.hurry)
        stop.open()
        parts.spawner.open()
        stack.callback(parts.spawner.close)
        stack.callback(parts.survivors.close)
        parts.logs.open()
        stack.push_async_callback(parts.logs.close)
        # Before the ports open, so that the first answer is already the whole truth.
        await parts.recovery.run(records)
        mounts = MountWatcher(parts.supervisor.observe_mounts)
        mounts.open()
        stack.callback(mounts.close)

        bound = [server.bind(address) for address in _addresses(settings.listen)]
        await server.start()
        log.info("serving", addresses=[address.target for address in bound], pid=os.getpid())
        await stop.wait()
        return await _shut_down(parts, server, settings)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the daemon is made of, unopened."""

    spawner: ProcessSpawner
    survivors: ProcessSurvivors
    logs: LogFiles
    supervisor: Supervisor
    pings: Pings
    services: dict[str, grpc.GenericRpcHandler]
    """By full name."""
    recovery: Recovery


def _assemble(settings: DaemonSettings, state_dir: StateDir, journal: SqliteJournal) -> _Parts:
    clock = LoopClock()
    readiness = HealthProbe()
    spawner = ProcessSpawner(os.environ, state_dir.owner)
    survivors = ProcessSurvivors(state_dir.owner, state_dir.exits, _guard())
    logs = LogFiles(
        settings.logs_dir, max_size=settings.log_max_size, echo=EchoSink(1) if settings.echo_logs else None
    )
    supervisor = Supervisor(
        settings.supervision,
        spawner=spawner,
        readiness=readiness,
        logs=logs,
        events=EventLog(clock.now, past=journal),
        clock=clock,
        journal=journal,
        new_uuid=lambda: str(uuid.uuid4()),
    )
    replacer = Replacer(supervisor)
    pings = Pings()
    supervisor.events.listeners.append(lambda _: pings.ping())
    instances = InstanceService(supervisor, replacer, pings, InstanceV2(None), log_control)
    return _Parts(
        spawner=spawner,
        survivors=survivors,
        logs=logs,
        supervisor=supervisor,
        pings=pings,
        services={
            process_service.SERVICE.full_name: ProcessService(supervisor, replacer).handler(),
            instance_service.SERVICE.full_name: instances.handler(),
            event_service.SERVICE.full_name: EventService(supervisor).handler(),
        },
        recovery=Recovery(supervisor, replacer, survivors=survivors, readiness=readiness),
    )


def _report_health(journal: SqliteJournal, supervisor: Supervisor, server: GrpcServer) -> None:
    """Let the health service tell of the journal under the name `journal`; the daemon serves either way."""
    loop = asyncio.get_running_loop()
    reports: set[asyncio.Task[None]] = set()

    def report(well: bool) -> None:
        task = loop.create_task(server.report(JOURNAL_HEALTH, well=well))
        reports.add(task)
        task.add_done_callback(reports.discard)

    journal.follow(supervisor.records, supervisor.events.history.recent, report)
    report(not journal.trouble)


def _guard() -> int | None:
    """Return the PID of the guard that started this daemon, None without one."""
    text = os.environ.get("INSTANCE_MANAGER_GUARD", "")
    return int(text) if text.isdecimal() and int(text) == os.getppid() else None


async def _shut_down(parts: _Parts, server: GrpcServer, settings: DaemonSettings) -> int:
    """End everything in order; the watchers are told all before the streams end."""
    await server.drain()
    supervisor = parts.supervisor
    left: list[Process] = []
    if settings.on_stop is OnStop.LEAVE:
        supervisor.stop_starting()
        log.info("shutting down; the processes live on", processes=len(supervisor.left))
    else:
        grace = settings.shutdown_grace
        log.info("shutting down", processes=len(supervisor.left), grace_seconds=grace)
        left = await supervisor.shutdown(grace)
    supervisor.events.close()
    parts.pings.close()
    await server.stop(_RPC_GRACE)
    for process in left:
        log.error("process left behind", name=process.name, uuid=process.uuid, reason=process.error_msg)
    log.info("stopped", left=len(left))
    return 1 if left else 0


class _StopSignal:
    """SIGTERM or SIGINT: the first one asks for the end, a second one for a quick end."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self._asked = asyncio.Event()
        self._hurry = hurry

    def open(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        log.info("signal received", signal=number.name)
        if self._asked.is_set():
            self._hurry()
        self._asked.set()

    async def wait(self) -> None:
        await self._asked.wait()


def _addresses(listen: Address) -> list[Address]:
    return [listen] if listen.path else [listen, listen.shifted(INSTANCE_SERVICE_OFFSET)]


def _raise_descriptor_limit() -> None:
    """Use all descriptors there are: each process takes one, each client one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
