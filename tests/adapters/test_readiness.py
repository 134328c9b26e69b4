"""Readiness: an instance serves when its gRPC health service says so, and else it is told what is missing."""

import asyncio
import errno
import itertools
import resource
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from instance_manager.adapters import readiness
from instance_manager.adapters.process import ListenerCheck, Reaper
from instance_manager.adapters.readiness import HealthProbe
from tests.support.daemon import BIN
from tests.support.patience import patience
from tests.support.processes import by_session, descriptors

HOST = "127.0.0.1"
Serving = health_pb2.HealthCheckResponse


class Port:
    """A port that is ours: bound, and nobody listens on it until the test says so."""

    def __init__(self, host: str = HOST, number: int = 0, shared: bool = True) -> None:
        """Server processes that a test starts can listen on a `shared` port, too."""
        self._host = host
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
        self._socket.bind((host, number))
        self.number: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        return f"[{self._host}]:{self.number}" if ":" in self._host else f"{self._host}:{self.number}"

    def listen(self) -> socket.socket:
        """Accept connections, but never answer."""
        self._socket.listen()
        self._socket.setblocking(False)
        return self._socket

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def port() -> Iterator[Port]:
    reserved = Port()
    yield reserved
    reserved.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


StartStub = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def stub() -> Iterator[StartStub]:
    """Start a stub instance on a port; it does not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: Port, *options: str) -> subprocess.Popen[bytes]:
        command = [str(BIN), "stub", "replica", "--listen", port.address, *options]
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def logged(process: subprocess.Popen[bytes], wanted: str) -> None:
    """Wait until a stub has said something."""

    def read() -> None:
        assert process.stdout is not None
        assert any(wanted in line.decode() for line in process.stdout)

    await asyncio.to_thread(read)


@asynccontextmanager
async def server(port: Port, servicer: health.aio.HealthServicer | None) -> AsyncIterator[None]:
    """Run a gRPC server, without a health service if none is given."""
    running = grpc.aio.server()
    if servicer is not None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, running)
    running.add_insecure_port(port.address)
    await running.start()
    yield
    await running.stop(0)


@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize(("mine", "theirs"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
async def test_an_instance_is_asked_at_its_own_address_and_a_stranger_at_another_is_not(
    mine: str, theirs: str, serves: bool, stub: StartStub
) -> None:
    own = Port(mine)
    strange = Port(theirs, own.number)
    servicer = health.aio.HealthServicer()
    status = health_pb2.HealthCheckResponse
    await servicer.set("", status.NOT_SERVING if serves else status.SERVING)
    process = stub(own, *([] if serves else ["--not-serving"]))
    await logged(process, "listening")
    probe = HealthProbe(ListenerCheck(by_session(Reaper()).around).stranger)
    try:
        async with server(strange, servicer):
            missing = await probe.wait(own.number, patience(20) if serves else 1, process.pid)
        assert missing is None if serves else "NOT_SERVING" in (missing or "")
    finally:
        own.close()
        strange.close()


async def test_an_instance_that_serves_is_ready_at_once(port: Port, stub: StartStub) -> None:
    process = stub(port)
    await logged(process, "listening")
    begun = time.monotonic()
    assert await HealthProbe().wait(port.number, patience(20)) is None
    assert time.monotonic() - begun < patience(5)


async def test_an_instance_that_serves_later_is_ready_soon_after(port: Port, stub: StartStub) -> None:
    process = stub(port, "--ready-after", "0.5")
    ready = asyncio.create_task(HealthProbe().wait(port.number, patience(20)))
    await logged(process, "listening")
    begun = time.monotonic()
    assert await ready is None
    assert time.monotonic() - begun < patience(5)


async def test_an_instance_that_never_listens_is_told_so_when_the_time_is_over(
    port: Port, stub: StartStub
) -> None:
    process = stub(port, "--never-ready")
    await logged(process, "never listens")
    begun = time.monotonic()
    missing = await HealthProbe().wait(port.number, 0.3)
    assert 0.29 <= time.monotonic() - begun < patience(15)
    assert missing == f"not ready within 0.3 s: nothing listens on localhost:{port.number}"


async def test_an_instance_that_does_not_serve_is_told_with_what_it_says(port: Port, stub: StartStub) -> None:
    process = stub(port, "--not-serving")
    await logged(process, "listening")
    missing = await HealthProbe().wait(port.number, 3)
    assert missing == (f"not ready within 3 s: the health check on localhost:{port.number} says NOT_SERVING")


@pytest.mark.parametrize("call_timeout", [5.0, 0.1])
async def test_a_listener_that_answers_nothing_is_told_even_after_calls_have_timed_out(
    port: Port, monkeypatch: pytest.MonkeyPatch, call_timeout: float
) -> None:
    monkeypatch.setattr(readiness, "_CALL_TIMEOUT", call_timeout)
    port.listen()
    begun = time.monotonic()
    missing = await HealthProbe().wait(port.number, 0.5)
    assert 0.49 <= time.monotonic() - begun < patience(15)
    assert missing == (
        f"not ready within 0.5 s: localhost:{port.number} accepts connections but answers no health check"
    )


async def test_an_instance_without_a_health_service_is_told_with_what_it_says(port: Port) -> None:
    async with server(port, None):
        missing = await HealthProbe().wait(port.number, 3)
    assert missing is not None
    assert missing.startswith(
        f"not ready within 3 s: the health check on localhost:{port.number} says UNIMPLEMENTED: "
    )


async def test_an_instance_that_says_so_later_is_ready_then(port: Port) -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("", Serving.NOT_SERVING)
    asked = asyncio.Event()
    check = servicer.Check

    async def tell(request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        asked.set()
        return await check(request, context)

    servicer.Check = tell  # type: ignore[method-assign]
    async with server(port, servicer):
        ready = asyncio.create_task(HealthProbe().wait(port.number, patience(20)))
        async with asyncio.timeout(patience(20)):
            await asked.wait()
        await servicer.set("", Serving.SERVING)
        assert await ready is None


class Answering(grpc.GenericRpcHandler):
    """Answers health checks with given bytes, the last ones for good."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: object) -> bytes:
        del request, context
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@asynccontextmanager
async def answering(port: Port, *answers: bytes) -> AsyncIterator[None]:
    running = grpc.aio.server(handlers=[Answering(*answers)])
    running.add_insecure_port(port.address)
    await running.start()
    yield
    await running.stop(0)


UNKNOWN_STATUS = Serving(status=77).SerializeToString()


@pytest.mark.parametrize("odd", [UNKNOWN_STATUS, b"\xff garbage", b"\x08"])
async def test_an_odd_answer_means_not_yet_and_is_told_when_the_time_is_over(port: Port, odd: bytes) -> None:
    async with answering(port, odd):
        missing = await HealthProbe().wait(port.number, 2)
    assert missing == (
        f"not ready within 2 s: the health check on localhost:{port.number} says what is no health status: "
        f"{odd!r}"
    )


async def test_an_instance_that_answers_oddly_at_first_is_ready_later(port: Port) -> None:
    serving = Serving(status=Serving.SERVING).SerializeToString()
    async with answering(port, UNKNOWN_STATUS, b"\xff garbage", serving), asyncio.timeout(patience(20)):
        assert await HealthProbe().wait(port.number, patience(20)) is None


async def test_an_error_that_nobody_foresaw_means_not_yet(
    port: Port, stub: StartStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [LookupError("odd"), MemoryError()]
    accepts = readiness._accepts

    async def failing(family: socket.AddressFamily, host: str, number: int) -> bool:
        if errors:
            raise errors.pop()
        return await accepts(family, host, number)

    monkeypatch.setattr(readiness, "_accepts", failing)
    process = stub(port)
    await logged(process, "listening")
    assert await HealthProbe().wait(port.number, patience(20)) is None
    monkeypatch.setattr(readiness, "_accepts", None)
    missing = await HealthProbe().wait(port.number, 0.1)
    assert missing is not None
    assert "failed: TypeError" in missing


async def test_an_instance_that_listens_on_ipv6_only_is_found(stub: StartStub) -> None:
    try:
        port = Port("::1")
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    process = stub(port)
    await logged(process, "listening")
    assert await HealthProbe().wait(port.number, patience(20)) is None
    port.close()


async def test_a_socket_that_the_kernel_connects_to_itself_is_not_taken_for_an_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Chance(socket.socket):
        """Gets the very port as its own that it connects to."""

        def connect_ex(self, address: Any) -> int:
            if self.family == socket.AF_INET and self.getsockname()[1] == 0:
                self.bind(address)
            return super().connect_ex(address)

    port = Port()
    port.close()
    with Chance() as sock:
        sock.connect_ex((HOST, port.number))
        assert sock.getsockname() == sock.getpeername()
    monkeypatch.setattr(socket, "socket", Chance)
    missing = await HealthProbe().wait(port.number, 0.05)
    assert missing is not None
    assert "nothing listens" in missing


@pytest.mark.parametrize("phase", ["connecting", "asking"])
async def test_a_probe_that_is_called_off_leaves_no_task_and_no_descriptor(
    port: Port, phase: str, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    await HealthProbe().wait(port.number, 0.01)
    tasks = asyncio.all_tasks()
    before = sockets()
    loop = asyncio.get_running_loop()
    if phase == "connecting":
        tried = asyncio.Event()
        accepts = readiness._accepts

        async def tell(family: socket.AddressFamily, host: str, number: int) -> bool:
            tried.set()
            return await accepts(family, host, number)

        monkeypatch.setattr(readiness, "_accepts", tell)
        probe = asyncio.create_task(HealthProbe().wait(port.number, patience(20)))
        async with asyncio.timeout(patience(20)):
            await tried.wait()
    else:
        listener = port.listen()
        probe = asyncio.create_task(HealthProbe().wait(port.number, patience(20)))
        async with asyncio.timeout(patience(20)):
            while True:  # it knocks first
                called, _ = await loop.sock_accept(listener)
                stack.callback(called.close)
                if await loop.sock_recv(called, 65536):
                    break
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    if phase == "asking":
        async with asyncio.timeout(patience(5)):  # gRPC hangs up when it has waited for an answer, not before
            while await loop.sock_recv(called, 65536):
                pass
    stack.close()
    assert asyncio.all_tasks() == tasks
    async with asyncio.timeout(patience(20)):
        while not sockets() <= before:  # noqa: ASYNC110 - a thread of gRPC closes what it has hung up
            await asyncio.sleep(0.01)


def sockets() -> set[str]:
    return {target for target in descriptors().values() if "socket:" in target}


def held() -> list[Port]:
    """Return a port of localhost that nobody else can listen on: it is ours in each family there is."""
    while True:
        port = Port(shared=False)
        try:
            return [port, Port("::1", port.number, shared=False)]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # there is no IPv6 here
                return [port]
            port.close()


async def test_many_probes_of_ports_where_nothing_listens_cost_little() -> None:
    ports = [held() for _ in range(50)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    missing = await asyncio.gather(*(HealthProbe().wait(port.number, patience(3)) for port, *_ in ports))
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    for port in itertools.chain(*ports):
        port.close()
    assert [each for each in missing if each is None or "nothing listens" not in each] == []
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < patience(wall / 2)
