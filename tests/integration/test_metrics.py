"""Metrics, liveness and readiness of the installed daemon."""

import asyncio
import contextlib
import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from instance_manager.client import Client
from tests.support.cli import run
from tests.support.daemon import Daemon, Watch, port_span, running_daemon, shell, sleeper, stub
from tests.support.patience import patience

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "metrics.txt"
DOCUMENT = ROOT / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- /metrics -->"
CHANCE = re.compile(
    r"process_.*_(bytes|fds|seconds|total)$|instance_manager_(event_loop_.*|log_files|log_bytes|instance_.*)$|.*_sum$"
)
"""Samples whose values differ from run to run."""


async def scenario(daemon: Daemon) -> str:
    """Let a little of everything happen and return the metrics."""
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("vol-e-0"))
        await watch.state("vol-e-0", "running")
        await client.process_create(stub("vol-r-1"))
        await watch.state("vol-r-1", "running")
        bad = sleeper("vol-r-2")
        bad.binary = "/nonexistent/replica"
        await client.process_create(bad)
        await watch.state("vol-r-2", "error")
        with pytest.raises(Exception, match="ALREADY_EXISTS"):
            await client.process_create(bad)
        await client.process_get("vol-r-1")
        await client.process_delete("vol-e-0")
        await watch.state("vol-e-0", "deleted")
        return (await daemon.http("/metrics"))[1]


def normalised(text: str) -> str:
    """Return metrics with `#` for whatever differs from run to run."""
    lines = []
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        name, _, labels = sample.partition("{")
        if line.startswith("#"):
            lines.append(line)
        elif name == "instance_manager_build_info":
            lines.append(re.sub(r'"[^"]*"', '"#"', line))
        elif CHANCE.match(name) or (name.endswith("_bucket") and 'le="+Inf"' not in labels):
            lines.append(f"{sample} #")
        else:
            lines.append(f"{sample} {value}")
    return "\n".join(lines) + "\n"


def table(text: str) -> str:
    """Return the metrics as the table of docs/metrics.md."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        named = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {named} | {family.documentation} |")
    return "\n".join(rows) + "\n"


async def test_the_metrics_are_those_written_down_and_documented(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # With cgroups, the reason would name a directory of this machine.
    options = ("--containment", "session", "--metrics-by-instance")
    async with running_daemon(tmp_path, *options) as daemon:
        text = await scenario(daemon)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    documented, _, after = rest.partition(END)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(normalised(text))
        DOCUMENT.write_text(f"{before}{BEGIN}{table(text)}{END}{after}")
        return
    hint = "run pytest with --update-golden and look at the difference"
    assert normalised(text) == GOLDEN.read_text(), hint
    assert table(text) == documented, hint


@contextlib.contextmanager
def locked(journal: Path) -> Iterator[None]:
    """Keep everyone else from writing a journal."""
    with contextlib.closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def test_a_journal_that_cannot_be_written_shows_and_the_daemon_is_ready_all_the_same(
    daemon: Daemon,
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        assert "\ninstance_manager_journal_up 1.0\n" in (await daemon.http("/metrics"))[1]
        with locked(daemon.folder / "state" / "journal.db"):
            await client.process_create(sleeper("b"))
            await watch.state("b", "running")
            metrics = (await daemon.http("/metrics"))[1]
            assert "\ninstance_manager_journal_up 0.0\n" in metrics
            assert re.search(r"^instance_manager_journal_failures_total [1-9]", metrics, re.MULTILINE)
            status, body = await daemon.http("/readyz")
            assert status == 200
            assert "cannot write the journal" in json.loads(body)["journal"]


async def test_it_is_not_ready_while_it_ends_and_alive_to_the_end(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("a", "--ignore", "SIGINT"))
        await watch.state("a", "running")
        assert await daemon.http("/readyz") == (
            200,
            '{"ready": true, "phase": "serving", "journal": "ok"}\n',
        )
        daemon.process.terminate()
        await watch.state("a", "stopping")
        status, body = await daemon.http("/readyz")
        assert status == 503
        assert json.loads(body)["phase"] == "draining"
        assert (await daemon.http("/healthz"))[0] == 200
        assert "\ninstance_manager_ready 0.0\n" in (await daemon.http("/metrics"))[1]
        daemon.process.terminate()
        assert await daemon.ended() == 0


async def test_how_processes_go_wrong_is_counted_by_cause(tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, "--ready-timeout", "0.2", "--stop-timeout", "0.2") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await client.process_create(stub("unready", "--never-ready"))
        await watch.state("unready", "error")
        await client.process_delete("unready")
        await watch.state("unready", "deleted")
        await client.process_create(shell("crashes", "exit 3"))
        await watch.state("crashes", "error")
        await client.process_create(shell("deaf", "trap '' INT; echo deaf; while :; do sleep 1; done"))
        await watch.state("deaf", "running")
        async for line in client.process_log("deaf", follow=True):
            if line == "deaf":
                break
        await client.process_delete("deaf")
        await watch.state("deaf", "deleted")
        metrics = (await daemon.http("/metrics"))[1]
        for cause in ("readiness", "exit"):
            assert f'\ninstance_manager_process_errors_total{{cause="{cause}"}} 1.0\n' in metrics
        assert "\ninstance_manager_process_kills_total 1.0\n" in metrics


async def test_a_daemon_that_takes_over_counts_only_what_happens_under_it(tmp_path: Path) -> None:
    first = Daemon(tmp_path, "--on-stop", "leave")
    daemon = Daemon(tmp_path)
    daemon.marker = first.marker
    try:
        await first.start()
        async with first.client() as client, Watch(client) as watch:
            await client.process_create(sleeper("a"))
            await watch.state("a", "running")
        await first.stop()
        await daemon.start()
        async with daemon.client() as client, Watch(client) as watch:
            metrics = (await daemon.http("/metrics"))[1]
            assert '\ninstance_manager_processes{state="running",type="replica"} 1.0\n' in metrics
            assert '\ninstance_manager_process_transitions_total{state="running"} 0.0\n' in metrics
            assert "\ninstance_manager_event_revision 2.0\n" in metrics
            assert "\ninstance_manager_events_published_total 0.0\n" in metrics
            await client.process_delete("a")
            await watch.state("a", "deleted")
            metrics = (await daemon.http("/metrics"))[1]
            assert "\ninstance_manager_process_start_seconds_count 0.0\n" in metrics
            assert "\ninstance_manager_process_stop_seconds_count 1.0\n" in metrics
    finally:
        assert await daemon.clean_up() == []


async def test_without_an_address_nothing_is_told(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--metrics-listen", "") as daemon:
        assert not [line for line in daemon.lines if "metrics" in line["event"]]


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A socket on whose address nobody else can listen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("how", ["option", "environment"])
async def test_an_address_that_is_taken_never_ends_the_daemon(
    tmp_path: Path, taken: socket.socket, how: str
) -> None:
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    daemon = Daemon(
        tmp_path,
        environment={} if how == "option" else {"INSTANCE_MANAGER_DAEMON_METRICS_LISTEN": address},
    )
    daemon.metrics = ["--metrics-listen", address] if how == "option" else []
    try:
        await daemon.start()
        line = await daemon.logged(lambda line: line["event"] == "no metrics are served")
        assert line["level"] == "warning"
        assert line["reason"].startswith(f"cannot listen on {address}: ")
        assert "choose another address with --metrics-listen" in line["reason"]
        async with daemon.client() as client:
            assert await client.health() == "SERVING"
            assert await client.health("background") == "SERVING"
            await until_health(client, "metrics", "NOT_SERVING")
            (finding,) = await told_by_doctor(daemon, "metrics")
            assert finding["severity"] == "warning"
            taken.close()
            # As soon as it is free.
            assert (await daemon.http("/readyz"))[0] == 200
            await until_health(client, "metrics", "SERVING")
        told = [line for line in daemon.lines if line["event"] == "no metrics are served"]
        assert len(told) == 1
    finally:
        assert await daemon.clean_up() == []


async def until_health(client: Client, name: str, status: str) -> None:
    async with asyncio.timeout(patience(30)):
        while await client.health(name) != status:
            pass


async def told_by_doctor(daemon: Daemon, check: str) -> list[dict[str, Any]]:
    options = ("--state-dir", f"{daemon.folder}/state", "--logs-dir", str(daemon.logs))
    result = await run("--url", daemon.url, "doctor", *options)
    return [each for each in result.json if each["check"] == check]


async def test_an_address_that_this_machine_does_not_have_ends_no_daemon_either(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--metrics-listen", "192.0.2.1:9500") as daemon:
        line = await daemon.logged(lambda line: line["event"] == "no metrics are served")
        assert "not an address of this machine" in line["reason"]


async def test_the_daemons_own_ports_are_never_handed_out(tmp_path: Path) -> None:
    """Not even that of metrics, while another program still has it."""
    span = range(port_span()[1] - 29, port_span()[1] - 19)
    with socket.create_server(("127.0.0.1", span[6])) as other:
        listen = ("--listen", f"127.0.0.1:{span[1]}", "--metrics-listen", f"127.0.0.1:{span[6]}")
        ports = ("--port-range", f"{span[0]}-{span[-1]}")
        async with running_daemon(tmp_path, *listen, *ports) as daemon, daemon.client() as client:
            await daemon.logged(lambda line: line["event"] == "no metrics are served")
            other.close()
            given = []
            for number in range(5):
                created = await client.process_create(sleeper(f"p{number}", port_count=1))
                given.append(created.status.port_start)
            assert sorted(given) == [span[each] for each in (0, 5, 7, 8, 9)]
            with pytest.raises(grpc.aio.AioRpcError, match="cannot allocate 1 consecutive ports"):
                await client.process_create(sleeper("late", port_count=1))


async def test_the_default_address_being_taken_stops_no_volume(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        loop = asyncio.get_running_loop()
        until = loop.time() + patience(5)
        while loop.time() < until:
            # Taken already: by somebody for good, which is just as well, or by another run of this test.
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", 9500)))
                break
            await asyncio.sleep(0.1)  # who frees a port tells nobody
        daemon = Daemon(tmp_path)
        daemon.metrics = []
        try:
            await daemon.start()
            line = await daemon.logged(lambda line: line["event"] == "no metrics are served")
            assert line["level"] == "warning"
            assert "cannot listen on 127.0.0.1:9500: " in line["reason"]
            async with daemon.client() as client:
                assert await client.health() == "SERVING"
        finally:
            assert await daemon.clean_up() == []
