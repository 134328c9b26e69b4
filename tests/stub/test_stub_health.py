import asyncio
import contextlib
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import TrailersReceived

from tests.support.patience import patience

StartListening = Callable[..., tuple[subprocess.Popen[str], int]]

SERVING = HealthCheckResponse.SERVING
DEADLINE = patience(20.0)
# each channel its own connection, where grpc would share one per process
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@contextlib.contextmanager
def connected(port: int) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OWN_CONNECTION) as channel:
        yield channel


def check(channel: grpc.Channel, service: str = "") -> int:
    health: Any = HealthStub(channel)  # its types know no methods
    return int(health.Check(HealthCheckRequest(service=service), timeout=DEADLINE).status)


def watch(channel: grpc.Channel, service: str = "") -> Any:
    health: Any = HealthStub(channel)
    return health.Watch(HealthCheckRequest(service=service), timeout=DEADLINE)


async def check_of_its_own(port: int) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OWN_CONNECTION) as channel:
        health: Any = HealthStub(channel)
        return int((await health.Check(HealthCheckRequest(), timeout=DEADLINE)).status)


@pytest.fixture
def port(start_listening: StartListening) -> int:
    return start_listening()[1]


async def test_many_clients_at_once_are_told_that_it_serves(port: int) -> None:
    answers = await asyncio.gather(*(check_of_its_own(port) for _ in range(30)))
    assert answers == [SERVING] * 30


def test_a_client_may_ask_again_on_the_same_connection(port: int) -> None:
    with connected(port) as channel:
        assert [check(channel) for _ in range(200)] == [SERVING] * 200


def test_a_stub_told_not_to_serve_says_so(start_listening: StartListening) -> None:
    with connected(start_listening("--not-serving")[1]) as channel:
        assert check(channel) == HealthCheckResponse.NOT_SERVING


def test_an_unknown_service_is_not_found(port: int) -> None:
    with connected(port) as channel:
        with pytest.raises(grpc.RpcError) as error:
            check(channel, "engine")
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        assert check(channel) == SERVING


@pytest.mark.parametrize("service", ["x" * 5, "x" * 100_000])
def test_an_unknown_method_is_unimplemented_whatever_is_sent(port: int, service: str) -> None:
    with connected(port) as channel:
        call: Any = channel.unary_unary(
            "/ptypes.ControllerService/VolumeGet", HealthCheckRequest.SerializeToString
        )
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as error:
                call(HealthCheckRequest(service=service), timeout=DEADLINE)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert check(channel) == SERVING


def test_a_watch_tells_the_status_once_and_stays_open(port: int) -> None:
    with connected(port) as channel:
        watches = [watch(channel), watch(channel, "engine")]
        assert [next(calls).status for calls in watches] == [SERVING, HealthCheckResponse.SERVICE_UNKNOWN]
        assert check(channel) == SERVING
        assert all(calls.is_active() for calls in watches)
        for calls in watches:
            calls.cancel()
        assert check(channel) == SERVING


def test_clients_that_say_nothing_hold_up_nobody(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)), connected(port) as channel:
        for linger in (0, 1):
            with socket.create_connection(("127.0.0.1", port)) as probe:
                # lingering for no time makes close send RST instead of FIN
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
        assert check(channel) == SERVING


def test_a_client_that_speaks_something_else_is_cut_off_alone(port: int) -> None:
    with connected(port) as channel, socket.create_connection(("127.0.0.1", port)) as other:
        assert check(channel) == SERVING
        other.settimeout(DEADLINE)
        other.sendall(b"GET / HTTP/1.1\r\nHost: stub\r\n\r\n")
        while other.recv(4096):
            pass
        assert check(channel) == SERVING


def test_a_call_cancelled_as_soon_as_made_does_not_harm_the_next(port: int) -> None:
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "stub"),
        (":path", "/grpc.health.v1.Health/Check"),
        ("content-type", "application/grpc"),
    ]
    client = H2Connection()
    client.initiate_connection()
    for stream in (1, 3):
        client.send_headers(stream, headers)
        client.send_data(stream, b"\0\0")  # in two frames, which is as good as one
        client.send_data(stream, b"\0\0\0", end_stream=True)
        if stream == 1:
            client.reset_stream(stream, ErrorCodes.CANCEL)
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(client.data_to_send())
        trailers: list[tuple[int | None, object]] = []
        while not trailers:
            data = sock.recv(4096)
            assert data, "the connection was cut"
            events = client.receive_data(data)
            trailers += [
                (event.stream_id, event.headers) for event in events if isinstance(event, TrailersReceived)
            ]
        assert trailers == [(3, [(b"grpc-status", b"0")])]
