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
from instance_manager.adapters.metrics import (
    Calls,
    Endpoint,
    EndpointError,
    Lifecycles,
    LoopLag,
    MetricsServer,
    Pages,
    Phase,
    Sources,
)
from instance_manager.adapters.mounts import MountWatcher
from instance_manager.adapters.process import ProcessSpawner, ProcessSurvivors
from instance_manager.adapters.readiness import HealthProbe
from instance_manager.adapters.tls import CertificateKeeper
from instance_manager.api import event_service, instance_service, process_service
from instance_manager.api.event_service import EventService
from instance_manager.api.instance_service import InstanceService
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.process_service import ProcessService
from instance_manager.api.server import (
    INSTANCE_SERVICE_OFFSET,
    Address,
    AddressError,
    GrpcServer,
    refuse_exposed,
)
from instance_manager.api.tls import ServerTls
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
_LATE = 0.1
"""Seconds by which a timer may be late on a busy machine."""
_SECOND_CHANCE = 1.0
"""Seconds that are waited at most after the daemon has stood still."""
CERTIFICATES_HEALTH = "certificates"
"""Name under which it tells whether the certificates on disk are in use and have not expired."""
_RPC_GRACE = 2.0
"""Seconds that calls under way get after the last process has ended."""


class OnStop(StrEnum):
    """What becomes of the processes when the daemon is asked to end."""

    TERMINATE = auto()
    """They end with it."""
    LEAVE = auto()
    """They live on and the next daemon takes them over."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Mutual TLS."""

    folder: Path
    """Holds ca.crt, tls.crt and tls.key."""
    peer_name: str
    """The name that every certificate has to carry."""


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
    metrics_listen: Endpoint | None
    """Where metrics, liveness and readiness are told; None: nowhere."""
    metrics_required: bool
    """Whether the daemon refuses to start if they cannot be told there."""
    tls: TlsSettings | None
    """None serves plain text."""
    insecure: bool
    """Whether plain text may be served to other machines."""


class LoopClock:
    """Real time; implements `app.interfaces.Clock`."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def call_later(self, delay: float, action: Callable[[], None]) -> Cancellable:
        """Do something in `delay` seconds; see `app.interfaces.Clock.call_later`."""
        if delay > 0:
            return _FairTimer(delay, action)
        return asyncio.get_running_loop().call_soon(action)


class _FairTimer:
    """A timer that does not act on a daemon that has just stood still.

    Whoever was given a time, such as an instance that is to end, may have kept it while nobody was there to
    see. So a timer that comes late waits once more, and what has happened is heard first.
    """

    def __init__(self, delay: float, action: Callable[[], None]) -> None:
        self._action = action
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic() + delay
        self._handle = self._loop.call_later(delay, self._look)

    def cancel(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        late = time.monotonic() - self._due
        if late > _LATE:
            self._handle = self._loop.call_later(min(late, _SECOND_CHANCE), self._action)
        else:
            self._action()


def run(settings: DaemonSettings) -> int:
    """Serve until a signal says otherwise.

    Returns:
        0 after a clean end, 1 if processes were left that could not be ended.

    Raises:
        AddressError: if an address cannot be listened on.
        EndpointError: if metrics are required and cannot be served.
        CertificateError: if the certificates cannot be used.
        StateDirError: if the state directory cannot be used.
    """
    _raise_descriptor_limit()
    # What was loaded at the start is never garbage: leave it out of every collection.
    gc.freeze()
    work: Coroutine[Any, Any, int] = serve(settings)
    return uvloop.run(work)


async def serve(settings: DaemonSettings) -> int:
    """Serve on the running event loop; see `run`."""
    # Before anything else is touched: who may call is not to be found out while somebody does.
    keeper = _certificates(settings)
    async with AsyncExitStack() as stack:
        state_dir = StateDir(settings.state_dir)
        state_dir.open()
        stack.callback(state_dir.close)
        journal = SqliteJournal(state_dir.journal, boot_id())
        records = journal.open()
        stack.callback(journal.close)
        parts = _assemble(settings, state_dir, journal)
        tls = ServerTls(lambda: keeper.current, keeper.peer_name) if keeper else None
        server = GrpcServer(parts.services, tls)
        reporter = _Reporter(server)
        history = parts.supervisor.events.history
        journal.follow(parts.supervisor.records, history.recent, reporter.under(JOURNAL_HEALTH))
        reporter.under(JOURNAL_HEALTH)(not journal.trouble)
        parts.lifecycles.take_over(record.process for record in records)
        parts.lag.open()
        stack.callback(parts.lag.close)
        stack.push_async_callback(await _serve_metrics(settings, parts.pages))

        stop = _StopSignal(parts.supervisor.hurry)
        stop.open()
        parts.spawner.open()
        stack.callback(parts.spawner.close)
        stack.callback(parts.survivors.close)
        parts.logs.open()
        stack.push_async_callback(parts.logs.close)
        parts.pages.phase = Phase.RECOVERING
        # Before the ports open, so that the first answer is already the whole truth.
        await parts.recovery.run(records)
        mounts = MountWatcher(parts.supervisor.observe_mounts)
        mounts.open()
        stack.callback(mounts.close)

        bound = [server.bind(address) for address in _addresses(settings.listen)]
        if keeper:
            keeper.follow(reporter.under(CERTIFICATES_HEALTH))
            stack.callback(keeper.close)
        await server.start()
        addresses = [address.target for address in bound]
        log.info("serving", addresses=addresses, pid=os.getpid(), tls=keeper is not None)
        parts.pages.phase = Phase.SERVING
        await stop.wait()
        parts.pages.phase = Phase.DRAINING
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
    calls: Calls
    lifecycles: Lifecycles
    lag: LoopLag
    pages: Pages


def _assemble(settings: DaemonSettings, state_dir: StateDir, journal: SqliteJournal) -> _Parts:
    clock = LoopClock()
    readiness = HealthProbe()
    spawner = ProcessSpawner(os.environ, state_dir.owner)
    survivors = ProcessSurvivors(state_dir.owner, state_dir.exits, _guard())
    logs = LogFiles(
        settings.logs_dir, max_size=settings.log_max_size, echo=EchoSink(1) if settings.echo_logs else None
    )
    calls, lifecycles, lag = Calls(), Lifecycles(), LoopLag()
    supervisor = Supervisor(
        settings.supervision,
        spawner=spawner,
        readiness=readiness,
        logs=logs,
        events=EventLog(clock.now, past=journal, observe=lifecycles.changed),
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
            process_service.SERVICE.full_name: ProcessService(supervisor, replacer).handler(calls),
            instance_service.SERVICE.full_name: instances.handler(calls),
            event_service.SERVICE.full_name: EventService(supervisor).handler(calls),
        },
        recovery=Recovery(supervisor, replacer, survivors=survivors, readiness=readiness),
        calls=calls,
        lifecycles=lifecycles,
        lag=lag,
        pages=Pages(
            Sources(supervisor, journal, logs, pings_merged=lambda: pings.merged),
            calls=calls,
            lifecycles=lifecycles,
            lag=lag,
        ),
    )


async def _serve_metrics(settings: DaemonSettings, pages: Pages) -> Callable[[], Coroutine[Any, Any, None]]:
    """Tell metrics over HTTP if that is wanted and possible; return what ends it.

    Raises:
        EndpointError: if that is required and cannot be done.
    """
    server = MetricsServer(pages.get)
    if settings.metrics_listen is not None:
        try:
            bound = await server.open(settings.metrics_listen)
        except EndpointError as error:
            if settings.metrics_required:
                raise
            # Nobody has asked for this very address, and no volume shall wait for figures.
            log.warning("no metrics are served", reason=str(error))
        else:
            log.info("metrics are served", addresses=[str(endpoint) for endpoint in bound])
    return server.close


class _Reporter:
    """Lets the health service tell of parts of the daemon, each by name; the daemon serves either way."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._reports: set[asyncio.Task[None]] = set()

    def under(self, name: str) -> Callable[[bool], None]:
        """Return what is to be called with whether the part of this name is well."""

        def report(well: bool) -> None:
            task = self._loop.create_task(self._server.report(name, well=well))
            self._reports.add(task)
            task.add_done_callback(self._reports.discard)

        return report


def _certificates(settings: DaemonSettings) -> CertificateKeeper | None:
    """Return the certificates to serve with, opened; None to serve plain text, where that is allowed.

    Raises:
        AddressError: if plain text would be served to other machines without leave.
        CertificateError: if the certificates cannot be used.
    """
    if settings.tls:
        keeper = CertificateKeeper(settings.tls.folder, settings.tls.peer_name, time.time)
        keeper.open()
        return keeper
    try:
        refuse_exposed(settings.listen)
    except AddressError:
        if not settings.insecure:
            raise
        log.warning(
            "plain text: whoever reaches this address can start programs", address=settings.listen.target
        )
    return None


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
