"""A daemon that stood still, or got no CPU, says so and holds it against nobody."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Watch, running_daemon, sleeper, stub

TIMEOUT = 1
"""Seconds to get ready and to end; every stall here is longer."""


def value(metrics: str, sample: str) -> float:
    """Return the value of one sample, given with its labels."""
    match = re.search(rf"^{re.escape(sample)} (\S+)$", metrics, re.MULTILINE)
    assert match, sample
    return float(match[1])


async def stall(daemon: Daemon, seconds: float, *others: int) -> None:
    """Let the daemon stand still, and other processes with it."""
    pids = (daemon.pid, *others)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)  # the time itself is what is tested
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
async def hasty(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Daemon]:
    """A daemon that gives its instances little time for something."""
    async with running_daemon(tmp_path, request.param, str(TIMEOUT)) as running:
        yield running


@pytest.fixture
def seconds(sized: Callable[[int, int], int]) -> int:
    return sized(3, 10)


@pytest.mark.parametrize("hasty", ["--ready-timeout"], indirect=True)
async def test_instances_that_got_ready_while_the_daemon_stood_still_run(hasty: Daemon, seconds: int) -> None:
    async with hasty.client() as client, Watch(client) as watch:
        for number in range(3):
            await client.process_create(stub(f"late-{number}", "--ready-after", "0.5"))
        await client.process_create(stub("never", "--never-ready"))
        await stall(hasty, seconds)
        for number in range(3):
            await watch.state(f"late-{number}", "running")
        assert {c.spec.name for c in watch.seen if c.status.state == "error"} <= {"never"}
        # A stall is no excuse for ever.
        assert "not ready" in (await watch.state("never", "error", 30)).status.error_msg


@pytest.mark.parametrize("hasty", ["--stop-timeout"], indirect=True)
@pytest.mark.parametrize("frozen", ["the daemon", "everything"])
async def test_instances_that_were_ending_when_the_daemon_stood_still_are_not_killed(
    hasty: Daemon, seconds: int, frozen: str
) -> None:
    async with hasty.client() as client, Watch(client) as watch:
        names = [f"slow-{number}" for number in range(3)]
        for name in names:
            await client.process_create(stub(name, "--stop-after", "0.5"))
        for name in names:
            await watch.state(name, "running")
        pids = hasty.descendants() if frozen == "everything" else []
        for name in names:
            await client.process_delete(name)
        await stall(hasty, seconds, *pids)
        for name in names:
            assert (await watch.state(name, "deleted")).status.error_msg == ""
        metrics = (await hasty.http("/metrics"))[1]
        assert value(metrics, "instance_manager_process_kills_total") == 0


async def test_a_stall_shows_in_the_log_the_metrics_and_the_health_of_the_daemon(
    daemon: Daemon, seconds: int
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        # The machine may have stalled it already.
        before = value((await daemon.http("/metrics"))[1], "instance_manager_event_loop_stalls_total")
        await stall(daemon, seconds)
        line = await daemon.logged(
            lambda line: "event loop stood still" in line["event"] and line["seconds"] > seconds - 1
        )
        assert line["level"] == "warning"
        assert line["cpu_seconds"] < 1
        assert await client.health() == "SERVING"
        metrics = (await daemon.http("/metrics"))[1]
        assert value(metrics, "instance_manager_event_loop_stalls_total") > before
        assert value(metrics, "instance_manager_event_loop_longest_lag_seconds") > seconds - 1
        total = value(metrics, 'instance_manager_event_loop_lag_seconds_bucket{le="+Inf"}')
        assert value(metrics, 'instance_manager_event_loop_lag_seconds_bucket{le="1.0"}') < total
        status, body = await daemon.http("/healthz")
        assert status == 200
        assert '"event_loop_stalls": ' in body
        assert (await client.process_get("a")).status.state == "running"


@contextlib.asynccontextmanager
async def full_cpu() -> AsyncIterator[None]:
    """Let twice as many processes as there are CPUs compute without pause."""
    count = 2 * (os.cpu_count() or 1)
    busy = [
        await asyncio.create_subprocess_exec("/bin/sh", "-c", "while :; do :; done") for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            await process.wait()


@pytest.mark.timeout(500)
async def test_without_cpu_to_spare_nothing_fails(tmp_path: Path, sized: Callable[[int, int], int]) -> None:
    async with running_daemon(tmp_path) as daemon, daemon.client() as client, Watch(client) as watch:
        end = time.monotonic() + sized(5, 300)
        async with full_cpu():
            for turn in range(1_000_000):
                names = [f"r{number}-{turn}" for number in range(3)]
                for name in names:
                    await client.process_create(stub(name))
                for name in names:
                    await watch.state(name, "running", 60)
                    await client.process_delete(name)
                for name in names:
                    assert (await watch.state(name, "deleted", 60)).status.error_msg == ""
                assert await client.health() == "SERVING"
                watch.seen.clear()
                if time.monotonic() > end:
                    break
        metrics = (await daemon.http("/metrics"))[1]
        for cause in ("spawn", "readiness", "exit"):
            assert value(metrics, f'instance_manager_process_errors_total{{cause="{cause}"}}') == 0
        assert value(metrics, "instance_manager_process_kills_total") == 0
        assert value(metrics, 'instance_manager_process_transitions_total{state="running"}') == 3 * (turn + 1)
