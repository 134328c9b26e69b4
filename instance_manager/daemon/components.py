"""The parts of the daemon, and how they fit together."""

import os
import uuid
from dataclasses import dataclass

import grpc

from instance_manager.adapters.journal import SqliteJournal, StateDir
from instance_manager.adapters.logs import LogFiles
from instance_manager.adapters.metrics import Calls, Lifecycles, LoopLag, Pages, Sources
from instance_manager.adapters.process import OsProcessAdopter, ProcessSpawner
from instance_manager.adapters.readiness import HealthProbe
from instance_manager.adapters.spdk import SpdkConnection
from instance_manager.adapters.tls.reloader import CertificateKeeper
from instance_manager.api import audit_service, event_service, instance_service, process_service
from instance_manager.api.audit_service import AuditService
from instance_manager.api.entrance import Entrance
from instance_manager.api.event_service import EventService
from instance_manager.api.instance_service import InstanceService
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.process_service import ProcessService
from instance_manager.app.adoption import Adoption
from instance_manager.app.audit import AuditTrail
from instance_manager.app.broadcast import Pings
from instance_manager.app.events import EventLog
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.daemon.settings import DaemonSettings
from instance_manager.platform.clock import LoopClock
from instance_manager.platform.contract import GUARD_VARIABLE
from instance_manager.platform.logging import control as log_control


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the daemon, not opened yet."""

    spawner: ProcessSpawner
    adopter: OsProcessAdopter
    logs: LogFiles
    supervisor: Supervisor
    pings: Pings
    v2: SpdkConnection | None
    services: dict[str, grpc.GenericRpcHandler]
    """Handlers by the full name of the service."""
    recovery: Adoption
    calls: Calls
    lifecycles: Lifecycles
    lag: LoopLag
    pages: Pages


def assemble(
    settings: DaemonSettings, state_dir: StateDir, journal: SqliteJournal, keeper: CertificateKeeper | None
) -> Parts:
    """Put the parts together; nothing is opened yet."""
    clock = LoopClock()
    readiness = HealthProbe()
    spawner = ProcessSpawner(os.environ, state_dir.owner, settings.binary_roots)
    adopter = OsProcessAdopter(state_dir.owner, state_dir.exits, _guard())
    logs = LogFiles(settings.logs_dir, max_size=settings.log_max_size, echo=1 if settings.echo_logs else None)
    calls, lifecycles, lag = Calls(), Lifecycles(), LoopLag()
    events = EventLog(clock.now, store=journal)
    events.observe(lifecycles.changed)
    supervisor = Supervisor(
        settings.supervision,
        spawner=spawner,
        readiness=readiness,
        logs=logs,
        events=events,
        clock=clock,
        journal=journal,
        new_uuid=lambda: str(uuid.uuid4()),
    )
    replacer = Replacer(supervisor)
    trail = AuditTrail(clock.now)
    pings = Pings()
    supervisor.changed.observe(lambda _: pings.ping())
    v2 = SpdkConnection(settings.spdk, pings.ping) if settings.spdk else None
    instances = InstanceService(
        supervisor, replacer, pings, InstanceV2(v2.instances if v2 else None), log_control
    )
    return Parts(
        spawner=spawner,
        adopter=adopter,
        logs=logs,
        supervisor=supervisor,
        pings=pings,
        v2=v2,
        services=Entrance(
            trail,
            calls,
            max_streams=settings.max_streams,
            no_sockets=lambda: spawner.descriptors() | adopter.descriptors(),
        ).before(
            {
                process_service.SERVICE.full_name: ProcessService(supervisor, replacer).handler(),
                instance_service.SERVICE.full_name: instances.handler(),
                event_service.SERVICE.full_name: EventService(supervisor).handler(),
                audit_service.SERVICE.full_name: AuditService(trail).handler(),
            }
        ),
        recovery=Adoption(supervisor, replacer, adopter=adopter, readiness=readiness),
        calls=calls,
        lifecycles=lifecycles,
        lag=lag,
        pages=Pages(
            Sources(supervisor, journal, logs, keeper, pings_merged=lambda: pings.overflows),
            calls=calls,
            lifecycles=lifecycles,
            lag=lag,
        ),
    )


def _guard() -> int | None:
    """Return the PID of the guard that started this daemon, None without one."""
    text = os.environ.get(GUARD_VARIABLE, "")
    return int(text) if text.isdecimal() and int(text) == os.getppid() else None
