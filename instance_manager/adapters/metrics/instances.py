"""Metrics by instance: what each of them uses. There may be thousands, so they have to be asked for."""

from collections.abc import Awaitable, Callable, Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from instance_manager.core.instance import type_of_process
from instance_manager.core.process import Process
from instance_manager.core.usage import Usage

_PREFIX = "instance_manager_instance_"
_LABELS = ("name", "type")
_FAMILIES = (
    (CounterMetricFamily, "cpu_seconds", "CPU time, without cgroups only of living processes."),
    (GaugeMetricFamily, "memory_bytes", "The working set; without the controller, what is resident."),
    (GaugeMetricFamily, "processes", "Processes."),
    (GaugeMetricFamily, "threads", "Processes and threads."),
    (CounterMetricFamily, "read_bytes", "Bytes read from block devices."),
    (CounterMetricFamily, "written_bytes", "Bytes written to block devices."),
    (CounterMetricFamily, "out_of_memory_kills", "Kills for want of memory, as the kernel counts them."),
)
"""Kind, the name that `Usage` has, too, and help."""


class InstanceCollector:
    """Collects what was seen at the last look."""

    def __init__(self, read: Callable[[], Awaitable[Mapping[str, tuple[Process, Usage]]]]) -> None:
        self._read = read
        self._seen: Mapping[str, tuple[Process, Usage]] = {}

    async def refresh(self) -> None:
        """Look at what instances use."""
        self._seen = await self._read()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; what cannot be told of an instance is absent."""
        for kind, name, documentation in _FAMILIES:
            family = kind(_PREFIX + name, documentation, labels=_LABELS)
            for process, usage in self._seen.values():
                if (value := getattr(usage, name)) is not None:
                    type_ = type_of_process(process.name, process.spec.instance_type)
                    family.add_metric((process.name, type_), value)
            yield family
