"""The small HTTP server: right answers, and bounds for whoever asks too much or says too little."""

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import Any

import pytest
from structlog.testing import capture_logs

from instance_manager.adapters.metrics import (
    Endpoints,
    Lifecycles,
    LoopLag,
    MetricsServer,
    MetricsSources,
    Phase,
    RpcMetrics,
    server,
)
from instance_manager.adapters.metrics.endpoints import Response
from instance_manager.app.events import EventLog
from instance_manager.app.supervisor import Settings, Supervisor
from instance_manager.core.addresses import Address
from instance_manager.core.ports import PortRange
from instance_manager.platform.background import Background
from instance_manager.platform.listening import AddressError
from tests.support.fakes import (
    FakeClock,
    FakeJournal,
    FakeLogs,
    FakeReadiness,
    FakeSpawner,
)
from tests.support.patience import patience
from tests.support.processes import descriptors

LOOPBACK = Address("127.0.0.1", 0)


async def get(path: str) -> Response:
    if path == "/defect":
        raise KeyError("a defect")
    if path == "/big":
        return Response(HTTPStatus.OK, b"x" * 50_000_000, "text/plain")
    return Response(HTTPStatus.OK, path.encode(), "text/plain")


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    """Where pages are served."""
    serving = MetricsServer(get, Background())
    (bound,) = await serving.open(LOOPBACK)
    yield bound
    await serving.close()


def open_sockets() -> int:
    return len([each for each in descriptors().values() if "socket:" in each])


async def sockets(count: int) -> None:
    """Wait until so many sockets are open; nothing tells when one is closed."""
    async with asyncio.timeout(patience(20)):
        while open_sockets() != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ask(address: Address, request: bytes) -> bytes:
    """Send a request and return the whole answer."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    try:
        async with asyncio.timeout(patience(20)):
            return await reader.read()
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_a_page_is_served_with_its_type_and_length_and_without_query(address: Address) -> None:
    answer = await ask(address, b"GET /page?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Type: text/plain\r\n" in head
    assert b"\r\nContent-Length: 5\r\n" in head
    assert body == b"/page"


async def test_a_client_of_the_standard_library_understands_it(address: Address) -> None:
    def fetch() -> bytes:
        with urllib.request.urlopen(f"http://{address}/page", timeout=patience(20)) as answer:
            return bytes(answer.read())

    assert await asyncio.to_thread(fetch) == b"/page"


async def test_head_is_answered_without_the_page(address: Address) -> None:
    head, _, body = (await ask(address, b"HEAD /page HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"Content-Length: 5" in head
    assert body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
async def test_other_methods_are_refused(address: Address, method: str) -> None:
    answer = await ask(address, f"{method} /page HTTP/1.1\r\n\r\n".encode())
    assert status(answer) == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    "request_line", [b"", b"GET", b"GET /", b"GET / HTTP/2.0", b"GET  / HTTP/1.1", b"\xff\xfe \x00 \x01"]
)
async def test_what_is_no_request_is_told_so(address: Address, request_line: bytes) -> None:
    assert status(await ask(address, request_line + b"\r\n\r\n")) == 400


async def test_a_request_that_is_too_long_is_refused(address: Address) -> None:
    assert status(await ask(address, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1_500)) == 431


async def test_a_defect_is_500_and_in_the_log_and_the_server_goes_on(address: Address) -> None:
    with capture_logs() as logged:
        assert status(await ask(address, b"GET /defect HTTP/1.1\r\n\r\n")) == 500
    assert [line["log_level"] for line in logged] == ["error"]
    assert status(await ask(address, b"GET / HTTP/1.1\r\n\r\n")) == 200


@pytest.mark.parametrize("request_", [b"", b"GET / HT", b"GET /big HTTP/1.1\r\n\r\n"])
async def test_one_who_says_too_little_or_reads_nothing_is_cut_off(
    address: Address, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_TIMEOUT", 0.2)
    before = open_sockets()
    with socket.create_connection((address.host, address.port), timeout=patience(20)) as caller:
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(caller, request_)
        await sockets(before + 1)  # only the caller's own is left


async def test_when_there_are_more_callers_than_room_the_oldest_is_hung_up_on_and_the_others_are_served(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 3)
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        callers = []
        for _ in range(3):
            caller = socket.socket()
            stack.enter_context(caller)
            caller.setblocking(False)
            await loop.sock_connect(caller, (address.host, address.port))
            await loop.sock_sendall(caller, b"GET /page HTTP/1.1\r\n")
            callers.append(caller)
        async with asyncio.timeout(patience(20)):
            assert status(await ask(address, b"GET / HTTP/1.1\r\n\r\n")) == 200
            with suppress(ConnectionError):  # another way to notice it
                assert await loop.sock_recv(callers[0], 1) == b""
        for caller in callers[1:]:
            await loop.sock_sendall(caller, b"\r\n")
            async with asyncio.timeout(patience(20)):
                assert status(await loop.sock_recv(caller, 65536)) == 200
    assert status(await ask(address, b"GET / HTTP/1.1\r\n\r\n")) == 200


async def test_an_error_that_nobody_foresaw_ends_one_connection_and_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    background = Background()
    serving = MetricsServer(get, background)
    (bound,) = await serving.open(LOOPBACK)
    with monkeypatch.context() as patch:
        patch.setattr(serving, "_answer", None)
        assert await ask(bound, b"GET / HTTP/1.1\r\n\r\n") == b""
        assert background.works["metrics-server"].failures == 1
    assert status(await ask(bound, b"GET / HTTP/1.1\r\n\r\n")) == 200
    await serving.close()


async def test_closing_cuts_off_who_is_connected_and_leaves_nothing() -> None:
    before, tasks = open_sockets(), asyncio.all_tasks()
    serving = MetricsServer(get, Background())
    (bound,) = await serving.open(LOOPBACK)
    reader, writer = await asyncio.open_connection(bound.host, bound.port)
    writer.write(b"GET /")
    await serving.close()
    with suppress(ConnectionError):  # another way to notice it
        assert await reader.read() == b""
    writer.close()
    await sockets(before)
    assert asyncio.all_tasks() == tasks


async def test_an_address_in_use_is_refused_and_says_what_to_do(address: Address) -> None:
    with pytest.raises(AddressError, match=r"^cannot listen on 127.0.0.1:\d+: .*--metrics-listen"):
        await MetricsServer(get, Background()).open(address)
    with pytest.raises(AddressError, match=r"^cannot listen on nowhere\.invalid:1: "):
        await MetricsServer(get, Background()).open(Address("nowhere.invalid", 1))


async def test_it_listens_on_ipv6_and_on_every_address() -> None:
    for host in ("::1", ""):
        serving = MetricsServer(get, Background())
        try:
            bound = await serving.open(Address(host, 0))
        except AddressError as error:
            pytest.skip(f"there is no IPv6 here: {error}")
        try:
            for each in bound:
                assert status(await ask(each, b"GET / HTTP/1.1\r\n\r\n")) == 200
        finally:
            await serving.close()


class Journal(FakeJournal):
    """A journal in whatever state a test wants."""

    failures = 0
    last_error = ""


class Stock:
    """Logs that are kept."""

    files, size, removed = 5, 4096, 2


class Logs(FakeLogs):
    """Logs without trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.failure_counts = {"open": 2}
        self.lost = 1
        self.echo_lines_lost = 3
        self.retention = Stock()


@pytest.fixture
def pages() -> Callable[..., Endpoints]:
    def make(**sources: Any) -> Endpoints:
        clock, journal, logs = FakeClock(), Journal(), Logs()
        supervisor = Supervisor(
            Settings(port_range=PortRange(10_000, 10_099)),
            spawner=FakeSpawner(),
            readiness=FakeReadiness(),
            logs=logs,
            events=EventLog(clock.now),
            clock=clock,
            journal=journal,
            new_uuid=str,
        )
        return Endpoints(
            MetricsSources(supervisor, journal, logs, **sources),
            rpc=RpcMetrics(),
            lifecycles=Lifecycles(),
            lag=LoopLag(),
        )

    return make


async def test_it_is_ready_only_while_it_serves(pages: Callable[..., Endpoints]) -> None:
    made = pages()
    for phase in Phase:
        made.phase = phase
        page = await made.get("/readyz")
        assert page.status == (200 if phase is Phase.SERVING else 503)
        assert f'"phase": "{phase}"'.encode() in page.body
        assert (await made.get("/healthz")).status == 200
        ready = b"\ninstance_manager_ready %.1f\n" % (phase is Phase.SERVING)
        assert ready in (await made.get("/metrics")).body


async def test_the_changes_of_engines_in_progress_are_counted(pages: Callable[..., Endpoints]) -> None:
    body = (await pages(engine_changes=lambda: 3).get("/metrics")).body
    assert b"\ninstance_manager_engine_changes 3.0\n" in body


class Certificates:
    """Certificates that were renewed twice, and now something is wrong with them."""

    expires_at = 1.9e9
    healthy = False
    renewals = 2
    failures = 3


async def test_certificates_are_told_of_where_there_are_any(pages: Callable[..., Endpoints]) -> None:
    expected = (
        b"\ninstance_manager_certificate_expiry_timestamp_seconds 1.9e+09\n",
        b"\ninstance_manager_certificates_up 0.0\n",
        b"\ninstance_manager_certificate_renewals_total 2.0\n",
        b"\ninstance_manager_certificate_renewal_failures_total 3.0\n",
    )
    without, body = (
        (await pages().get("/metrics")).body,
        (await pages(certificates=Certificates()).get("/metrics")).body,
    )
    for line in expected:
        assert line in body
        assert line.rpartition(b" ")[0] not in without.replace(b"\n#", b"")


async def test_merged_pings_and_trouble_with_logs_are_told(pages: Callable[..., Endpoints]) -> None:
    body = (await pages(pings_merged=lambda: 3).get("/metrics")).body
    assert b"\ninstance_manager_pings_merged_total 3.0\n" in body
    assert b'\ninstance_manager_log_failures_total{kind="open"} 2.0\n' in body


async def test_two_daemons_in_one_process_share_no_figure(pages: Callable[..., Endpoints]) -> None:
    assert (await pages().get("/metrics")).status == (await pages().get("/metrics")).status == 200


async def test_an_unknown_page_names_those_there_are(pages: Callable[..., Endpoints]) -> None:
    page = await pages().get("/")
    assert page.status == 404
    assert page.body == b"there are /metrics, /healthz, /readyz\n"
