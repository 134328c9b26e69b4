"""Metrics of the lifecycles of processes: how long they take to start and stop, and how they fail."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from instance_manager.adapters.metrics.histogram import Histogram
from instance_manager.core.change import Change
from instance_manager.core.process import Process, State

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_DELETED = "deleted"
_SPAWN, _READINESS, _EXIT = "spawn", "readiness", "exit"


@dataclass(slots=True)
class _Life:
    """What is known about one process. Times are by a monotonic clock."""

    process: Process | None
    """As of its latest change; None if it is new."""
    born: float | None = None
    """When it was created; None if by an earlier daemon."""
    stopping: float | None = None
    """When it began to stop; None if it did not, or with an earlier daemon."""


class Lifecycles:
    """Follows every change of every process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start without processes.

        Args:
            now: returns seconds of a monotonic clock.
        """
        self._now = now
        self._lives: dict[str, _Life] = {}
        """By UUID."""
        self._transitions = Counter(dict.fromkeys((*map(str, State), _DELETED), 0))
        self._errors = Counter(dict.fromkeys((_SPAWN, _READINESS, _EXIT), 0))
        self._kills = 0
        self._start = Histogram(_SECONDS)
        self._stop = Histogram(_SECONDS)

    def adopt(self, processes: Iterable[Process]) -> None:
        """Add the processes of an earlier daemon."""
        for process in processes:
            self._lives[process.uuid] = _Life(process)

    def on_change(self, change: Change) -> None:
        """Count a change."""
        process = change.process
        if change.deleted:
            self._gone(self._lives.pop(process.uuid, None))
            return
        life = self._lives.get(process.uuid)
        if life is None:
            born = self._now() if process.state is State.STARTING else None
            life = self._lives[process.uuid] = _Life(None, born)
        before, life.process = life.process, process
        if before is None or before.state is not process.state:
            self._entered(life, process)
        self._kills += process.killed and not (before and before.killed)

    def _entered(self, life: _Life, process: Process) -> None:
        self._transitions[process.state] += 1
        match process.state:
            case State.RUNNING if life.born is not None:
                self._start.observe(self._now() - life.born)
            case State.STOPPING:
                life.stopping = self._now()
            case State.ERROR:
                self._errors[_cause(process)] += 1

    def _gone(self, life: _Life | None) -> None:
        self._transitions[_DELETED] += 1
        if life is None or life.process is None or life.process.identity is None:
            return
        if life.stopping is not None:
            self._stop.observe(self._now() - life.stopping)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        transitions = CounterMetricFamily(
            "instance_manager_process_transitions",
            "Processes that entered a state, or left the list (deleted).",
            labels=("state",),
        )
        for state, count in self._transitions.items():
            transitions.add_metric((state,), count)
        errors = CounterMetricFamily(
            "instance_manager_process_errors",
            "Processes that entered the state error, by cause: they could not be spawned (spawn), were not "
            "ready in time (readiness), or ended by themselves with a status other than 0 (exit).",
            labels=("cause",),
        )
        for cause, count in self._errors.items():
            errors.add_metric((cause,), count)
        yield from (transitions, errors)
        yield CounterMetricFamily(
            "instance_manager_process_kills",
            "Processes that did not end within the stop timeout and were sent SIGKILL.",
            value=self._kills,
        )
        start = HistogramMetricFamily(
            "instance_manager_process_start_seconds",
            "Time from the creation of a process until it was running.",
        )
        self._start.add_to(start)
        stop = HistogramMetricFamily(
            "instance_manager_process_stop_seconds",
            "Time from the first signal to a process until nothing was left of it.",
        )
        self._stop.add_to(stop)
        yield from (start, stop)


def _cause(process: Process) -> str:
    if process.identity is None:
        return _SPAWN
    return _READINESS if process.exit is None else _EXIT
