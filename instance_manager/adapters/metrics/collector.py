"""Metrics that the parts of the daemon count themselves, read during a scrape."""

import os
import platform
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from instance_manager.app.containment import ContainmentStatus, Kind
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.instance import InstanceType, type_of_process
from instance_manager.core.process import Body, Process, State
from instance_manager.core.usage import Usage

_TYPES = (InstanceType.ENGINE, InstanceType.REPLICA)


class JournalHealth(Protocol):
    """What the metrics need to know about the journal."""

    @property
    def failures(self) -> int:
        """How often reading or writing has failed."""

    @property
    def last_error(self) -> str:
        """What is wrong with it now; empty if nothing is."""


class LogStock(Protocol):
    """What the metrics need to know about the log files that are kept."""

    @property
    def files(self) -> int:
        """Number of log files."""

    @property
    def size(self) -> int:
        """Bytes that they take on the disk."""

    @property
    def removed(self) -> int:
        """Number of logs removed."""


class LogHealth(Protocol):
    """What the metrics need to know about the log files."""

    @property
    def failure_counts(self) -> Mapping[str, int]:
        """What went wrong, by kind."""

    @property
    def lost(self) -> int:
        """Number of living processes whose output is lost."""

    @property
    def echo_lines_lost(self) -> int:
        """Number of lines that the echo could not write."""

    @property
    def retention(self) -> LogStock:
        """The log files that are kept."""


class WorkHealth(Protocol):
    """What the metrics need to know of one kind of background work."""

    @property
    def failures(self) -> int:
        """How often it has failed unexpectedly."""

    @property
    def error(self) -> str:
        """Why it is failing now; empty if it is not."""


class CertificateHealth(Protocol):
    """What the metrics need to know about the certificates."""

    @property
    def expires_at(self) -> float:
        """When those in use expire, in seconds since the epoch."""

    @property
    def healthy(self) -> bool:
        """Whether those on disk are in use and have not expired."""

    @property
    def renewals(self) -> int:
        """How often newer ones were loaded."""

    @property
    def failures(self) -> int:
        """How often newer ones could not be used."""


@dataclass(frozen=True, slots=True)
class MetricsSources:
    """Where the metrics come from."""

    supervisor: Supervisor
    journal: JournalHealth
    logs: LogHealth
    certificates: CertificateHealth | None = None
    """None without TLS."""
    works: Mapping[str, WorkHealth] = field(default_factory=dict)
    """The background work by name."""
    pings_merged: Callable[[], int] = lambda: 0
    """Returns the number of pings of InstanceWatch that were merged into an unread one."""
    engine_changes: Callable[[], int] = lambda: 0
    """Returns the number of changes of engines in progress through the proxy."""
    containment: Callable[[], ContainmentStatus] = lambda: ContainmentStatus(Kind.SESSION, "")
    usages: Callable[[], Awaitable[Mapping[str, tuple[Process, Usage]]]] | None = None
    """Looks at what each instance uses; None if metrics do not tell."""


class DaemonCollector:
    """Collects the metrics of the sources."""

    def __init__(self, sources: MetricsSources) -> None:
        self._sources = sources
        self._build = _build()
        self._first_revision = sources.supervisor.events.revision

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield self._build
        yield from self._processes()
        yield self._ports()
        yield from self._events()
        yield GaugeMetricFamily(
            "instance_manager_engine_changes",
            "Changes of engines in progress through the proxy, also those whose callers have gone.",
            value=self._sources.engine_changes(),
        )
        yield from self._containment()
        yield from self._journal()
        yield from self._logs()
        yield from self._background()
        yield from self._certificates()

    def _processes(self) -> Iterator[Metric]:
        supervisor = self._sources.supervisor
        listed = supervisor.processes().values()
        everything = supervisor.remaining
        family = GaugeMetricFamily(
            "instance_manager_processes",
            "Number of listed processes, by state and type.",
            labels=("state", "type"),
        )
        count = Counter((process.state, _type(process)) for process in listed)
        for state in State:
            for kind in _TYPES:
                family.add_metric((state, kind), count[state, kind])
        yield family
        yield GaugeMetricFamily(
            "instance_manager_processes_unlisted",
            "Number of processes that are not listed: those replacing others, and those that were replaced.",
            value=len(everything) - len(listed),
        )
        yield GaugeMetricFamily(
            "instance_manager_processes_hindered",
            "Number of processes that a signal alone could not stop; their error_msg says why.",
            value=sum(bool(process.stop_error) and process.body is not Body.GONE for process in everything),
        )

    def _ports(self) -> Metric:
        supervisor = self._sources.supervisor
        free = supervisor.registry.free_ports
        family = GaugeMetricFamily(
            "instance_manager_ports",
            "Number of ports in --port-range, free and used.",
            labels=("state",),
        )
        family.add_metric(("free",), free)
        family.add_metric(("used",), len(supervisor.settings.port_range) - free)
        return family

    def _events(self) -> Iterator[Metric]:
        events = self._sources.supervisor.events
        yield GaugeMetricFamily(
            "instance_manager_event_revision",
            "Revision of the latest change; it continues across restarts of the daemon.",
            value=events.revision,
        )
        yield CounterMetricFamily(
            "instance_manager_events_published",
            "Changes published to watchers.",
            value=events.revision - self._first_revision,
        )
        yield CounterMetricFamily(
            "instance_manager_subscribers_cut_off",
            "Watchers that were cut off because they did not read.",
            value=events.overflows,
        )
        yield CounterMetricFamily(
            "instance_manager_pings_merged",
            "Pings to watchers of instances that were merged into an unread one.",
            value=self._sources.pings_merged(),
        )

    def _containment(self) -> Iterator[Metric]:
        status = self._sources.containment()
        yield InfoMetricFamily(
            "instance_manager_containment",
            "How it is told which processes belong to an instance; always 1.",
            {
                "kind": status.kind,
                "reason": status.why,
                "controllers": ",".join(status.controllers),
                "controllers_missing": status.controllers_missing,
            },
        )
        yield CounterMetricFamily(
            "instance_manager_containment_failures",
            "How often no cgroup could be made for an instance.",
            value=sum(status.failures.values()),
        )
        yield GaugeMetricFamily(
            "instance_manager_limits_refused",
            "Number of limits that the last instance goes without, though they are wanted.",
            value=len(status.limits_refused),
        )

    def _journal(self) -> Iterator[Metric]:
        journal = self._sources.journal
        yield GaugeMetricFamily(
            "instance_manager_journal_up",
            "Whether the journal is written (1) or is failing (0).",
            value=not journal.last_error,
        )
        yield CounterMetricFamily(
            "instance_manager_journal_failures",
            "Failed reads and writes of the journal.",
            value=journal.failures,
        )

    def _logs(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "instance_manager_log_failures",
            "Failures with the log files of the processes, by kind.",
            labels=("kind",),
        )
        for kind, count in sorted(self._sources.logs.failure_counts.items()):
            family.add_metric((kind,), count)
        yield family
        yield GaugeMetricFamily(
            "instance_manager_logs_lost",
            "Living processes whose output is lost: their log could not be opened when they were started.",
            value=self._sources.logs.lost,
        )
        yield CounterMetricFamily(
            "instance_manager_log_echo_lines_lost",
            "Lines that could not be written to stdout with --echo-logs.",
            value=self._sources.logs.echo_lines_lost,
        )
        stock = self._sources.logs.retention
        yield GaugeMetricFamily(
            "instance_manager_log_files",
            "Log files, those of instances that are gone included; counted some seconds after deletes.",
            value=stock.files,
        )
        yield GaugeMetricFamily(
            "instance_manager_log_bytes", "Bytes that these log files take on the disk.", value=stock.size
        )
        yield CounterMetricFamily(
            "instance_manager_log_files_removed",
            "Log files of instances that are gone, removed by --log-keep-age and --log-keep-size.",
            value=stock.removed,
        )

    def _background(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "instance_manager_background_up",
            "Whether a background work of the daemon goes on (1), or fails and is tried again (0).",
            labels=("work",),
        )
        failures = CounterMetricFamily(
            "instance_manager_background_failures",
            "Unexpected errors in the background work of the daemon.",
            labels=("work",),
        )
        for name, work in sorted(self._sources.works.items()):
            up.add_metric((name,), not work.error)
            failures.add_metric((name,), work.failures)
        yield from (up, failures)

    def _certificates(self) -> Iterator[Metric]:
        expiry = GaugeMetricFamily(
            "instance_manager_certificate_expiry_timestamp_seconds",
            "When the certificates in use expire, in seconds since 1970; absent without TLS.",
        )
        up = GaugeMetricFamily(
            "instance_manager_certificates_up",
            "Whether the certificates on disk are in use and have not expired (1); absent without TLS.",
        )
        renewals = CounterMetricFamily(
            "instance_manager_certificate_renewals",
            "How often renewed certificates were loaded; absent without TLS.",
        )
        failures = CounterMetricFamily(
            "instance_manager_certificate_renewal_failures",
            "How often renewed certificates could not be used; absent without TLS.",
        )
        certificates = self._sources.certificates
        if certificates is not None:
            expiry.add_metric((), certificates.expires_at)
            up.add_metric((), certificates.healthy)
            renewals.add_metric((), certificates.renewals)
            failures.add_metric((), certificates.failures)
        yield from (expiry, up, renewals, failures)


def _type(process: Process) -> str:
    return type_of_process(process.name, process.spec.instance_type)


def _build() -> Metric:
    return InfoMetricFamily(
        "instance_manager_build",
        "Versions of the program; always 1.",
        {
            "version": version("instance-manager"),
            "commit": os.environ.get("INSTANCE_MANAGER_GIT_COMMIT", ""),
            "python": platform.python_version(),
            "grpc": version("grpcio"),
        },
    )
