"""What the parts of the daemon count themselves, read when somebody asks."""

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from instance_manager.app.supervisor import Supervisor
from instance_manager.core.instance import InstanceType, type_of_process
from instance_manager.core.process import Body, Process, State

_TYPES = (InstanceType.ENGINE, InstanceType.REPLICA)


class JournalHealth(Protocol):
    """What is asked of a journal."""

    @property
    def troubles(self) -> int:
        """How often reading or writing has failed."""

    @property
    def trouble(self) -> str:
        """What is wrong with it now; empty if nothing is."""


class LogHealth(Protocol):
    """What is asked of the log files."""

    @property
    def troubles(self) -> Mapping[str, int]:
        """What went wrong, by kind."""


class CertificateHealth(Protocol):
    """What is asked of the certificates that are served."""

    @property
    def expires_at(self) -> float:
        """When those in use expire, in seconds since the epoch."""

    @property
    def well(self) -> bool:
        """Whether those on disk are in use and have not expired."""

    @property
    def renewals(self) -> int:
        """How often newer ones were taken into use."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    supervisor: Supervisor
    journal: JournalHealth
    logs: LogHealth
    certificates: CertificateHealth | None = None
    """None without TLS."""
    pings_merged: Callable[[], int] = lambda: 0
    """Returns how many pings of InstanceWatch were merged into one that nobody had read yet."""


class DaemonCollector:
    """Tells what the sources have counted."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._build = _build()
        self._first_revision = sources.supervisor.events.revision

    def collect(self) -> Iterator[Metric]:
        """Tell everything."""
        yield self._build
        yield from self._processes()
        yield self._ports()
        yield from self._events()
        yield from self._journal()
        yield self._logs()
        yield from self._certificates()

    def _processes(self) -> Iterator[Metric]:
        supervisor = self._sources.supervisor
        listed = supervisor.processes().values()
        everything = supervisor.left
        family = GaugeMetricFamily(
            "instance_manager_processes",
            "Tells how many processes are listed, by state and type.",
            labels=("state", "type"),
        )
        count = Counter((process.state, _type(process)) for process in listed)
        for state in State:
            for kind in _TYPES:
                family.add_metric((state, kind), count[state, kind])
        yield family
        yield GaugeMetricFamily(
            "instance_manager_processes_unlisted",
            "Tells how many processes are not listed: those that replace others or were replaced.",
            value=len(everything) - len(listed),
        )
        yield GaugeMetricFamily(
            "instance_manager_processes_hindered",
            "Tells how many processes take more than a signal to end; their error_msg says why.",
            value=sum(bool(process.hindrance) and process.body is not Body.GONE for process in everything),
        )

    def _ports(self) -> Metric:
        supervisor = self._sources.supervisor
        free = supervisor.registry.free_ports
        family = GaugeMetricFamily(
            "instance_manager_ports",
            "Tells how many ports of the range for processes are free and used.",
            labels=("state",),
        )
        family.add_metric(("free",), free)
        family.add_metric(("used",), len(supervisor.settings.port_range) - free)
        return family

    def _events(self) -> Iterator[Metric]:
        events = self._sources.supervisor.events
        yield GaugeMetricFamily(
            "instance_manager_event_revision",
            "Tells the revision of the latest change; it goes on across restarts of the daemon.",
            value=events.revision,
        )
        yield CounterMetricFamily(
            "instance_manager_events_published",
            "Counts the changes that were told to whoever watches.",
            value=events.revision - self._first_revision,
        )
        yield CounterMetricFamily(
            "instance_manager_subscribers_cut_off",
            "Counts the watchers that were cut off because they did not read.",
            value=events.cut_off,
        )
        yield CounterMetricFamily(
            "instance_manager_pings_merged",
            "Counts the pings to watchers of instances that were merged into one that was not read yet.",
            value=self._sources.pings_merged(),
        )

    def _journal(self) -> Iterator[Metric]:
        journal = self._sources.journal
        yield GaugeMetricFamily(
            "instance_manager_journal_up",
            "Tells whether the journal is written (1) or is in trouble (0).",
            value=not journal.trouble,
        )
        yield CounterMetricFamily(
            "instance_manager_journal_failures",
            "Counts how often reading or writing the journal has failed.",
            value=journal.troubles,
        )

    def _logs(self) -> Metric:
        family = CounterMetricFamily(
            "instance_manager_log_failures",
            "Counts what went wrong with the log files of the processes, by kind.",
            labels=("kind",),
        )
        for kind, count in sorted(self._sources.logs.troubles.items()):
            family.add_metric((kind,), count)
        return family

    def _certificates(self) -> Iterator[Metric]:
        expiry = GaugeMetricFamily(
            "instance_manager_certificate_expiry_timestamp_seconds",
            "Tells when the certificates in use expire, in seconds since 1970; nothing without TLS.",
        )
        up = GaugeMetricFamily(
            "instance_manager_certificates_up",
            "Tells whether the certificates on disk are in use and not expired (1); nothing without TLS.",
        )
        renewals = CounterMetricFamily(
            "instance_manager_certificate_renewals",
            "Counts how often renewed certificates were taken into use; nothing without TLS.",
        )
        certificates = self._sources.certificates
        if certificates is not None:
            expiry.add_metric((), certificates.expires_at)
            up.add_metric((), certificates.well)
            renewals.add_metric((), certificates.renewals)
        yield from (expiry, up, renewals)


def _type(process: Process) -> str:
    return type_of_process(process.name, process.spec.instance_type)


def _build() -> Metric:
    return InfoMetricFamily(
        "instance_manager_build",
        "Tells which program this is, always 1.",
        {
            "version": version("instance-manager"),
            "commit": os.environ.get("INSTANCE_MANAGER_GIT_COMMIT", ""),
            "python": platform.python_version(),
            "grpc": version("grpcio"),
        },
    )
