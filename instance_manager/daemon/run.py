"""Running the daemon, from start to shutdown."""

import asyncio
import gc
import os
import resource
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop

from instance_manager.adapters.journal import SqliteJournal, StateDir
from instance_manager.adapters.metrics import MetricsServer, Phase
from instance_manager.adapters.mounts import MountWatcher
from instance_manager.adapters.process import GuardLink, check_pidfds, end_own_programs
from instance_manager.adapters.thaw import WORK as THAW
from instance_manager.adapters.thaw import Thaw
from instance_manager.adapters.tls.reloader import CertificateReloader
from instance_manager.api.listeners import refuse_exposed
from instance_manager.api.server import GrpcServer
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.process import Body, Process, State
from instance_manager.daemon.components import HEALTH_REPORT, LOG_HISTORY, Components, build
from instance_manager.daemon.settings import DaemonSettings, OnStop
from instance_manager.daemon.signals import Signals
from instance_manager.platform import contract
from instance_manager.platform.background import Background
from instance_manager.platform.contract import BACKGROUND_HEALTH, METRICS_HEALTH, SPDK_HEALTH
from instance_manager.platform.linux import boot_id
from instance_manager.platform.listening import AddressError
from instance_manager.platform.logging import control as log_control
from instance_manager.platform.memory import INTERVAL as MEMORY_INTERVAL
from instance_manager.platform.memory import FreeMemory, keep_one_heap

log = structlog.get_logger(__name__)

JOURNAL_HEALTH = "journal"
"""Name under which the health service reports whether the journal is written."""
CERTIFICATES_HEALTH = "certificates"
"""Name under which it reports whether the certificates on disk are in use and have not expired."""
_LIVING = {Body.ALIVE, Body.LEADER_EXITED}
_RPC_GRACE = 2.0
"""Seconds that calls in progress get after the last process has ended."""


def run(settings: DaemonSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0 after a clean shutdown, 1 if there are processes that could not be stopped.

    Raises:
        AddressError: if an address cannot be listened on, but for that of metrics.
        InvalidArgumentError: if a binary root is not a directory.
        CertificateError: if the certificates cannot be used.
        StateDirError: if the state directory cannot be used.
        PidfdUnsupportedError: if processes cannot be supervised on this machine.
    """
    check_pidfds()
    keep_one_heap()
    _raise_descriptor_limit()
    # Modules are never garbage: leave them out of every collection.
    gc.freeze()
    return uvloop.run(serve(settings))


async def serve(settings: DaemonSettings) -> int:
    """Serve on the running event loop; see `run`."""
    # Before anything else: without usable certificates nothing is touched.
    reloader = _certificates(settings)
    async with AsyncExitStack() as stack:
        state_dir = StateDir(settings.state_dir)
        state_dir.open()
        stack.callback(state_dir.close)
        link = _link(settings, state_dir.path)
        journal = SqliteJournal(state_dir.journal, boot_id())
        records = journal.open()
        stack.callback(journal.close)
        components = build(settings, state_dir, link, journal, reloader)
        server, background = components.server, components.background
        stack.push_async_callback(background.close)
        reporter = _Reporter(server, background)
        journal.follow(
            components.supervisor.records,
            components.supervisor.events.history.recent,
            reporter.under(JOURNAL_HEALTH),
        )
        reporter.under(JOURNAL_HEALTH)(not journal.last_error)
        journal.start_health_check(background)
        components.lifecycles.adopt(record.process for record in records)
        _observe(components, stack)
        metrics = await _metrics(settings, components, reporter)
        stack.push_async_callback(metrics.close)

        reload = reloader.look_now if reloader else lambda: None
        signals = Signals(components.supervisor.force_shutdown, reload)
        signals.open()
        _open_processes(components, stack)
        components.logs.open()
        stack.push_async_callback(components.logs.close)
        components.endpoints.phase = Phase.RECOVERING
        if components.v2:
            components.v2.open(reporter.under(SPDK_HEALTH))
            stack.push_async_callback(components.v2.close)
        stack.push_async_callback(components.close_connections)
        stack.push_async_callback(components.proxied.close)
        await _end_own_programs(state_dir.owner)
        # Before an adoption finds an instance without its log.
        await components.logs.retention.put_back()
        # Before the ports open, so that the very first answer is complete.
        await components.recovery.run(records)
        stack.callback(components.recovery.close)
        background.start(LOG_HISTORY, _remove_old_logs(components, journal))
        stack.callback(_follow_mounts(components))

        bound = [each.target for each in server.bind(settings.listen)]
        if reloader:
            reloader.follow(reporter.under(CERTIFICATES_HEALTH), background)
            stack.callback(reloader.close)
        await server.start()
        log.info("serving", addresses=bound, pid=os.getpid(), tls=reloader is not None)
        components.endpoints.phase = Phase.SERVING
        await signals.wait()
        components.endpoints.phase = Phase.DRAINING
        return await _shut_down(components, settings)


_FEW_DESCRIPTORS = 4096
"""Open files below which the daemon warns, like `doctor`."""


def _open_processes(components: Components, stack: AsyncExitStack) -> None:
    """Be ready to start processes, and to take them over."""
    components.reaper.open()
    stack.callback(components.reaper.close)
    stack.callback(components.containment.close)
    components.spawner.open()
    stack.callback(components.spawner.close)
    stack.callback(components.adopter.close)


def _observe(components: Components, stack: AsyncExitStack) -> None:
    """Sum up calls, measure how late the event loop is, and keep no memory that is free."""
    memory = FreeMemory()
    components.background.every("free-memory", MEMORY_INTERVAL, memory.give_back)
    stack.callback(memory.close)
    components.calls.open(components.background)
    stack.callback(components.calls.sum_up)
    components.lag.open(components.background)
    stack.callback(components.lag.close)


def _link(settings: DaemonSettings, state_dir: Path) -> GuardLink:
    """Find the guard; tell it what this daemon does with its instances, and log as the one before."""
    link = GuardLink.of(os.environ, state_dir)
    link.write_on_stop(settings.grace_at_end)
    if noted := link.read_log_settings():
        try:
            log_control.restore(noted)
        except InvalidArgumentError as error:
            log.warning("cannot log as much as the daemon before", reason=str(error))
    log_control.observe(link.write_log_settings)
    return link


async def _end_own_programs(owner: str) -> None:
    """End what daemons before have run for themselves, and mark what this one will run."""
    await end_own_programs(owner)
    # Instances have it anyway.
    os.environ[contract.OWNER_VARIABLE] = owner


def _certificates(settings: DaemonSettings) -> CertificateReloader | None:
    """Return the opened reloader of the certificates; None to serve plain text, if that is allowed.

    Raises:
        AddressError: if plain text would be served to other machines without --insecure.
        CertificateError: if the certificates cannot be used.
    """
    if settings.tls:
        reloader = CertificateReloader(settings.tls.folder, settings.tls.peer_name, time.time)
        reloader.open()
        return reloader
    try:
        refuse_exposed(settings.listen)
    except AddressError:
        if not settings.insecure:
            raise
        log.warning(
            "plain text: whoever reaches this address can start programs", address=settings.listen.target
        )
    return None


async def _remove_old_logs(components: Components, journal: SqliteJournal) -> None:
    """Remove logs from now on, by how their instances ended under earlier daemons too."""
    retention = components.logs.retention
    with components.background.guard(LOG_HISTORY):
        async for change in journal.changes():
            if change.deleted:
                failed = change.process.state is State.ERROR
                retention.ended(change.process.name, change.time, failed=failed)
    retention.open(components.background)


def _follow_mounts(components: Components) -> Callable[[], None]:
    """Follow which volumes are mounted read-only, after thawing what was left frozen.

    Returns:
        The function that ends it.
    """
    mounts = MountWatcher(components.supervisor.observe_mounts, components.background)
    mounts.open()
    if not any(process.body in _LIVING for process in components.supervisor.remaining):
        # An engine that lives may have frozen its file system for a snapshot that it is taking.
        Thaw(components.background).start()
    return mounts.close


async def _metrics(settings: DaemonSettings, components: Components, reporter: "_Reporter") -> MetricsServer:
    """Return the server of metrics, which listens as soon as it can."""
    server = MetricsServer(components.endpoints.get, components.background)
    if settings.metrics_listen:
        # Volumes are worth more than metrics: whoever has the port, the daemon starts.
        await server.start(settings.metrics_listen, reporter.under(METRICS_HEALTH))
    return server


class _Reporter:
    """Reports parts of the daemon to the health service, each under a name of its own."""

    def __init__(self, server: GrpcServer, background: Background) -> None:
        self._server = server
        self._background = background
        self._follow_background()

    def under(self, name: str) -> Callable[[bool], None]:
        """Return a function to call with whether the part of this name is healthy."""

        def report(healthy: bool) -> None:
            self._background.start(HEALTH_REPORT, self._server.report(name, healthy=healthy))

        return report

    def _follow_background(self) -> None:
        """Report each background work from now on, and all of it together."""

        def report(name: str, healthy: bool) -> None:
            self.under(f"{BACKGROUND_HEALTH}/{name}")(healthy)
            self.under(BACKGROUND_HEALTH)(not any(work.error for work in works.values()))

        works = self._background.works
        for name in works:
            report(name, healthy=True)
        self._background.observe(report)
        asyncio.get_running_loop().set_exception_handler(self._background.on_loop_error)


async def _shut_down(components: Components, settings: DaemonSettings) -> int:
    """Stop everything in order; watchers get all changes before their streams end."""
    supervisor, server = components.supervisor, components.server
    components.proxied.drain()
    await server.drain()
    unstopped: list[Process] = []
    if settings.on_stop is OnStop.LEAVE:
        supervisor.close()
        log.info("shutting down; the processes live on", processes=len(supervisor.remaining))
    else:
        grace = settings.shutdown_grace
        log.info("shutting down", processes=len(supervisor.remaining), grace_seconds=grace)
        components.containment.drain()
        unstopped = await supervisor.shutdown(grace)
        # What the daemon itself runs was left by no instance.
        await components.proxied.close()
        await components.background.end(THAW)
        await components.containment.end_strays()
    supervisor.events.close()
    components.pings.close()
    await server.stop(_RPC_GRACE)
    for process in unstopped:
        log.error("process left behind", name=process.name, uuid=process.uuid, reason=_why_left(process))
    log.info("stopped", left=len(unstopped))
    return 1 if unstopped else 0


def _why_left(process: Process) -> str:
    """Return why a process is left behind: that it was killed is no reason if only descendants remain."""
    if process.body is not Body.LEADER_EXITED:
        return process.error_msg
    tail = "it has ended, but not all of its descendants were found and ended in time"
    return "; ".join(filter(None, (process.error_msg, tail)))


def _raise_descriptor_limit() -> None:
    """Raise the limit of open files to its hard limit: each process and each client takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < _FEW_DESCRIPTORS:
        log.warning(
            "few open files are allowed: hardly any process can be created; raise the hard limit, as with "
            "ulimit -n or LimitNOFILE",
            limit=hard,
            recommended=_FEW_DESCRIPTORS,
        )
