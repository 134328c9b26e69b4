"""What is counted: the lives of processes, calls, and how late the event loop is."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import pytest
from prometheus_client.metrics_core import Metric
from structlog.testing import capture_logs

from instance_manager.adapters.metrics import Lifecycles, LoopLag, RpcMetrics, metrics_address
from instance_manager.adapters.metrics.rpc_metrics import MethodMetrics
from instance_manager.core.addresses import Address
from instance_manager.core.change import Change
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec
from instance_manager.platform.background import Background
from tests.support.patience import patience

NEW = Process(spec=ProcessSpec(name="r", binary="/bin/r"), uuid="u")
ALIVE = replace(NEW, identity=Identity(1, 1), body=Body.ALIVE)


class Collector(Protocol):
    def collect(self) -> Iterable[Metric]: ...


def figures(collector: Collector) -> dict[str, float]:
    """Return each sample, its labels' values behind the name; of the buckets those that are not empty."""
    found = {}
    for metric in collector.collect():
        for sample in metric.samples:
            key = " ".join((sample.name.removeprefix("instance_manager_"), *sample.labels.values()))
            if sample.value or not sample.name.endswith("_bucket"):
                found[key] = sample.value
    return found


class Watched:
    """Lifecycles that are told what a test says, at the times it says."""

    def __init__(self) -> None:
        self.time = 100.0
        self.lifecycles = Lifecycles(lambda: self.time)

    def tell(self, process: Process, *, after: float = 0.0, deleted: bool = False) -> None:
        self.time += after
        self.lifecycles.on_change(Change(1, 0.0, process, None, deleted))

    @property
    def figures(self) -> dict[str, float]:
        return figures(self.lifecycles)

    def known(self) -> int:
        return len(self.lifecycles._lives)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_starting_and_ending_are_timed_to_the_very_end(watched: Watched) -> None:
    watched.tell(NEW)
    watched.tell(replace(ALIVE, state=State.RUNNING), after=0.2)
    watched.tell(replace(ALIVE, state=State.STOPPING), after=5)
    watched.tell(replace(ALIVE, state=State.STOPPED), after=1)
    watched.tell(replace(ALIVE, state=State.STOPPED), after=0.5, deleted=True)
    told = watched.figures
    assert told["process_start_seconds_sum"] == pytest.approx(0.2)
    assert told["process_stop_seconds_sum"] == pytest.approx(1.5)
    assert "process_start_seconds_bucket 0.1" not in told
    assert told["process_start_seconds_bucket 0.25"] == told["process_start_seconds_bucket +Inf"] == 1
    entered = {state: told[f"process_transitions_total {state}"] for state in (*State, "deleted")}
    assert entered == {"starting": 1, "running": 1, "stopping": 1, "stopped": 1, "error": 0, "deleted": 1}
    assert watched.known() == 0


def test_a_change_of_a_condition_is_no_transition(watched: Watched) -> None:
    watched.tell(NEW)
    running = replace(ALIVE, state=State.RUNNING)
    watched.tell(running)
    watched.tell(replace(running, conditions={"FilesystemReadOnly": True}))
    assert watched.figures["process_transitions_total running"] == 1
    assert watched.figures["process_start_seconds_count"] == 1


@pytest.mark.parametrize(
    ("cause", "process"),
    [
        ("spawn", replace(NEW, state=State.ERROR, body=Body.GONE)),
        ("readiness", replace(ALIVE, state=State.ERROR)),
        ("exit", replace(ALIVE, state=State.ERROR, exit=ExitStatus(code=3), body=Body.LEADER_EXITED)),
    ],
)
def test_an_error_has_a_cause(watched: Watched, cause: str, process: Process) -> None:
    watched.tell(NEW)
    watched.tell(process)
    watched.tell(replace(process, stop_error="it has descendants"))
    told = watched.figures
    causes = {each: told[f"process_errors_total {each}"] for each in ("spawn", "readiness", "exit")}
    assert causes == dict.fromkeys(causes, 0) | {cause: 1}


def test_a_process_is_killed_once_however_often_that_is_tried(watched: Watched) -> None:
    watched.tell(NEW)
    stopping = replace(ALIVE, state=State.STOPPING)
    for process in (stopping, replace(stopping, killed=True), replace(stopping, killed=True, stop_error="D")):
        watched.tell(process)
    assert watched.figures["process_kills_total"] == 1


def test_one_that_could_not_be_spawned_has_no_end_to_be_timed(watched: Watched) -> None:
    watched.tell(NEW)
    watched.tell(replace(NEW, state=State.STOPPING))
    failed = replace(NEW, state=State.ERROR, body=Body.GONE)
    watched.tell(failed)
    watched.tell(failed, deleted=True)
    assert watched.figures["process_stop_seconds_count"] == 0


def test_one_that_was_taken_over_is_followed_from_where_it_was(watched: Watched) -> None:
    running = replace(ALIVE, state=State.RUNNING)
    watched.lifecycles.adopt([running])
    watched.tell(replace(running, conditions={"FilesystemReadOnly": True}))
    assert watched.figures["process_transitions_total running"] == 0
    watched.tell(replace(running, state=State.STOPPING))
    watched.tell(replace(running, state=State.STOPPED), after=2)
    watched.tell(replace(running, state=State.STOPPED), deleted=True)
    assert watched.figures["process_start_seconds_count"] == 0
    assert watched.figures["process_stop_seconds_sum"] == 2


def test_a_call_is_counted_when_it_begins_and_by_its_code_when_it_ends() -> None:
    calls = RpcMetrics()
    get = calls.method("S", "Get", streaming=False)
    for _ in range(3):
        get.on_started()
    get.on_ended("OK", 0.002)
    get.on_ended("NOT_FOUND", 0.02)
    told = figures(calls)
    assert told["grpc_started_total S Get"] == 3
    assert told["grpc_handled_total S Get OK"] == told["grpc_handled_total S Get NOT_FOUND"] == 1
    assert told["grpc_active_calls S Get"] == 1
    assert told["grpc_handling_seconds_sum S Get"] == pytest.approx(0.022)
    assert told["grpc_handling_seconds_bucket S Get 0.0025"] == 1


def test_streams_are_counted_but_not_timed_and_watches_are_watchers() -> None:
    calls = RpcMetrics()
    watch, log = (calls.method("S", name, streaming=True) for name in ("ThingWatch", "ThingLog"))
    other = calls.method("T", "Watch", streaming=True)
    for stream in (watch, watch, log, other):
        stream.on_started()
    watch.on_ended("CANCELLED", 3600)
    told = figures(calls)
    assert told["watchers S"] == told["watchers T"] == 1
    assert told["grpc_active_calls S ThingLog"] == 1
    assert not [name for name in told if "handling_seconds" in name]


def test_counting_a_call_costs_a_few_microseconds_at_most() -> None:
    get = RpcMetrics().method("S", "Get", streaming=False)
    assert _cost(get) < 20e-6  # about 0.7 where nothing else runs; a call itself is 300


def _cost(method: MethodMetrics) -> float:
    begun = time.thread_time()
    for _ in range(10_000):
        method.on_started()
        method.on_ended("OK", 0.001)
    return (time.thread_time() - begun) / 10_000


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patience(20)):
        while not condition():  # noqa: ASYNC110 - the loop itself is what is looked at
            await asyncio.sleep(0.01)


async def test_a_loop_that_was_kept_from_running_is_told_and_warned_of() -> None:
    lag = LoopLag(interval=0.05)
    with capture_logs() as logged:
        lag.open(Background())
        time.sleep(1.2)  # noqa: ASYNC251 - this is what is to be found out
        await until(lambda: lag.stalls == 1)
        longest = lag.longest
        await until(lambda: figures(lag)["event_loop_lag_seconds_count"] >= 3)
        lag.close()
    assert 1.1 < longest < 20
    told = figures(lag)
    assert told["event_loop_longest_lag_seconds"] >= longest
    assert told["event_loop_last_lag_seconds"] < longest
    assert told["event_loop_stalls_total"] == lag.stalls
    assert logged[0]["event"].startswith("the event loop stood still")
    assert logged[0]["seconds"] == pytest.approx(longest, abs=0.01)
    assert logged[0]["cpu_seconds"] < 1


async def test_a_loop_that_is_looked_at_no_more_leaves_no_timer() -> None:
    lag = LoopLag(interval=0.01)
    lag.open(Background())
    await until(lambda: figures(lag)["event_loop_lag_seconds_count"] >= 1)
    lag.close()
    count = figures(lag)["event_loop_lag_seconds_count"]
    other = LoopLag(interval=0.01)
    other.open(Background())
    await until(lambda: figures(other)["event_loop_lag_seconds_count"] >= 5)
    other.close()
    assert figures(lag)["event_loop_lag_seconds_count"] == count


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9500", "127.0.0.1", 9500),
        ("[::1]:0", "::1", 0),
        ("localhost:65535", "localhost", 65535),
        (":9500", "", 9500),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert metrics_address(text) == Address(host, port)
    assert str(metrics_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("9500", "localhost", "localhost:", "localhost:http", "localhost:-1", "localhost:65536"),
        *("::1:9500", "[::1]", "[::1:9500", "[localhost]:1", "localhost:٩٥٠٠"),
        *("unix:///run/x:1", "http://localhost:9500"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^cannot use the address .* write HOST:PORT"):
        metrics_address(text)
