"""The components of the daemon, and how they fit together."""

import os
import uuid
from dataclasses import dataclass

import structlog

from instance_manager.adapters.backup_store import BackupInspection
from instance_manager.adapters.engine import Channels, engines_over, spdk_engines_over
from instance_manager.adapters.engine.channels import WORK as ENGINE_CONNECTIONS
from instance_manager.adapters.host_mounts import HostMounts
from instance_manager.adapters.journal import SqliteJournal, StateDir
from instance_manager.adapters.journal.journal import WORK as JOURNAL_CHECK
from instance_manager.adapters.logs import LogFiles
from instance_manager.adapters.logs.files import WORKS as LOG_WORKS
from instance_manager.adapters.metrics import Endpoints, Lifecycles, LoopLag, MetricsSources, RpcMetrics
from instance_manager.adapters.metrics.lag import WORK as EVENT_LOOP_LAG
from instance_manager.adapters.metrics.server import WORK as METRICS_SERVER
from instance_manager.adapters.mounts import WORK as MOUNTS
from instance_manager.adapters.process import (
    GuardLink,
    ListenerCheck,
    OsProcessAdopter,
    ProcessSpawner,
    Reaper,
)
from instance_manager.adapters.readiness import HealthProbe
from instance_manager.adapters.spdk import SpdkConnection
from instance_manager.adapters.spdk.watch import WORK as SPDK_WATCH
from instance_manager.adapters.thaw import WORK as THAW
from instance_manager.adapters.tls.reloader import WORK as CERTIFICATES
from instance_manager.adapters.tls.reloader import CertificateReloader
from instance_manager.api.audit_service import AuditService
from instance_manager.api.disk_service import DiskService, DisksV2
from instance_manager.api.event_service import EventService
from instance_manager.api.instance_service import InstanceService
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.interceptors import CallLog, InterceptorChain
from instance_manager.api.interceptors.call_log import WORK as CALL_SUMMARY
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.process_service import ProcessService
from instance_manager.api.proxy import ProxyService, ProxyV2
from instance_manager.api.server import GrpcServer
from instance_manager.api.status_service import StatusService
from instance_manager.app.adoption import Adoption
from instance_manager.app.audit import AuditTrail
from instance_manager.app.broadcast import Pings
from instance_manager.app.containment import Containment
from instance_manager.app.engine import Completion
from instance_manager.app.events import EventLog
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.app.usage import UsageReader
from instance_manager.core.spdk import port_elsewhere
from instance_manager.daemon.containment import open_containment
from instance_manager.daemon.settings import DaemonSettings
from instance_manager.platform.background import EVENT_LOOP, Background
from instance_manager.platform.clock import LoopClock
from instance_manager.platform.listening import port_is_free
from instance_manager.platform.logging import control as log_control

log = structlog.get_logger(__name__)

HEALTH_REPORT = "health-report"
"""Name of the background work that tells the health service what has changed."""
LOG_HISTORY = "log-history"
"""Name of the one that reads how the instances ended whose logs are there."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components of the daemon, not opened yet."""

    background: Background
    reaper: Reaper
    containment: Containment
    spawner: ProcessSpawner
    adopter: OsProcessAdopter
    logs: LogFiles
    supervisor: Supervisor
    pings: Pings
    v2: SpdkConnection | None
    engines: Channels
    services: Channels
    """To the SPDK services of this node and of others, for the proxy."""
    proxied: Completion
    server: GrpcServer
    recovery: Adoption
    calls: CallLog
    lifecycles: Lifecycles
    lag: LoopLag
    endpoints: Endpoints

    async def close_connections(self) -> None:
        """Close those of the proxy; calls in progress are cancelled."""
        await self.engines.close()
        await self.services.close()


def build(
    settings: DaemonSettings,
    state_dir: StateDir,
    link: GuardLink,
    journal: SqliteJournal,
    reloader: CertificateReloader | None,
) -> Components:
    """Put the components together; nothing is opened yet."""
    clock = LoopClock()
    background = Background(*_works(settings))
    reaper = Reaper()
    containment = open_containment(settings, reaper, state_dir.owner, link.pid)
    readiness = HealthProbe(ListenerCheck(containment.around).stranger)
    spawner = ProcessSpawner(
        os.environ, state_dir.owner, settings.binary_roots, containment=containment, reaper=reaper
    )
    adopter = OsProcessAdopter(link.exits, link.pid, containment)
    logs = LogFiles(
        settings.logs_dir,
        max_size=settings.log_max_size,
        echo=1 if settings.echo_logs else None,
        keep=settings.log_keep,
        background=background,
    )
    rpc_metrics, lifecycles, lag = RpcMetrics(), Lifecycles(), LoopLag()
    events = EventLog(clock.now, store=journal)
    events.observe(lifecycles.on_change)
    supervisor = Supervisor(
        settings.supervision,
        spawner=spawner,
        readiness=readiness,
        logs=logs,
        events=events,
        clock=clock,
        journal=journal,
        new_uuid=lambda: str(uuid.uuid4()),
        port_is_free=port_is_free,
    )
    replacer = Replacer(supervisor)
    usages = UsageReader(supervisor, containment)
    trail = AuditTrail(clock.now)
    pings = Pings()
    supervisor.changed.observe(lambda _: pings.ping())
    v2 = (
        SpdkConnection(settings.spdk, pings.ping, background, certificates=reloader)
        if settings.spdk
        else None
    )
    instance_v2 = InstanceV2(v2.instances if v2 else None)
    engines, services, proxied = (
        Channels(background),
        Channels(background, certificates=reloader),
        Completion(),
    )
    inspection = BackupInspection(lambda name: supervisor.registry.find(name).process.spec.binary)
    proxy_v2 = (
        ProxyV2(spdk_engines_over(services, settings.spdk, port_elsewhere(settings.spdk)))
        if settings.spdk
        else None
    )
    proxy = (ProxyService(engines_over(engines), proxied, HostMounts(), inspection, proxy_v2),)
    disk = (DiskService(DisksV2(v2.service, v2.instances) if v2 else None, proxied),)
    manager = (
        ProcessService(supervisor, replacer),
        InstanceService(supervisor, replacer, pings, instance_v2, log_control),
        EventService(supervisor),
        AuditService(trail),
        StatusService(containment, usages),
    )
    listeners = (
        Listener(Offset.PROCESS, manager),
        Listener(Offset.PROXY, proxy),
        Listener(Offset.DISK, disk),
        Listener(Offset.INSTANCE, manager),
    )
    interceptors = InterceptorChain(
        trail,
        rpc_metrics,
        peer_name=reloader.peer_name if reloader else None,
        max_streams=settings.max_streams,
        no_sockets=lambda: spawner.descriptors() | adopter.descriptors(),
    )
    return Components(
        background=background,
        reaper=reaper,
        containment=containment,
        spawner=spawner,
        adopter=adopter,
        logs=logs,
        supervisor=supervisor,
        pings=pings,
        v2=v2,
        engines=engines,
        services=services,
        proxied=proxied,
        server=GrpcServer(listeners, interceptors, (lambda: reloader.current) if reloader else None),
        recovery=Adoption(supervisor, replacer, adopter=adopter, readiness=readiness),
        calls=interceptors.calls,
        lifecycles=lifecycles,
        lag=lag,
        endpoints=Endpoints(
            MetricsSources(
                supervisor,
                journal,
                logs,
                reloader,
                works=background.works,
                pings_merged=lambda: pings.overflows,
                engine_changes=lambda: len(proxied),
                containment=containment.status,
                usages=usages.read if settings.metrics_by_instance else None,
            ),
            rpc=rpc_metrics,
            lifecycles=lifecycles,
            lag=lag,
        ),
    )


def _works(settings: DaemonSettings) -> list[str]:
    """Return the names of the background work, in metrics from the start."""
    names = [
        *LOG_WORKS,
        MOUNTS,
        THAW,
        JOURNAL_CHECK,
        EVENT_LOOP_LAG,
        METRICS_SERVER,
        ENGINE_CONNECTIONS,
        CALL_SUMMARY,
        HEALTH_REPORT,
        LOG_HISTORY,
        EVENT_LOOP,
    ]
    if settings.spdk:
        names.append(SPDK_WATCH)
    if settings.tls:
        names.append(CERTIFICATES)
    return names
