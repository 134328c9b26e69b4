import errno
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.patience import patience

StartStub = Callable[..., subprocess.Popen[str]]
StartListening = Callable[..., tuple[subprocess.Popen[str], int]]
Stop = Callable[[subprocess.Popen[str]], tuple[int, str]]


def refuses(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def failure_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=patience(20))
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("listen", "reached_at"),
    [
        ("0.0.0.0:0", "127.0.0.1"),
        (":0", "127.0.0.1"),
        ("localhost:0", "localhost"),
        ("[::1]:0", "::1"),
        ("[::]:0", "::1"),
    ],
)
def test_it_listens_on_any_kind_of_address_and_logs_the_port(
    start_stub: StartStub, stop: Stop, listen: str, reached_at: str
) -> None:
    process = start_stub("replica", "--listen", listen, name="vol-r-1")
    assert process.stdout
    line = process.stdout.readline()
    start, _, rest = line.removesuffix("\n").rpartition(":")
    port, _, pid = rest.partition(" ")
    assert (start, pid) == (f"stub replica vol-r-1 listening on {listen[:-2]}", f"pid={process.pid}")
    socket.create_connection((reached_at, int(port)), timeout=patience(20)).close()
    assert stop(process)[0] == 0


@pytest.mark.parametrize(
    "listen", ["", "10000", "localhost:", "localhost:http", "localhost:65536", "localhost:-1", "::1:10000"]
)
def test_a_malformed_address_is_one_line_on_stderr_and_exit_code_1_even_if_never_used(
    start_stub: StartStub, listen: str
) -> None:
    process = start_stub("engine", f"--listen={listen}", "--never-ready")
    code, out, err = failure_of(process)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"instance-manager stub: cannot listen on {listen!r}: ")


@pytest.mark.parametrize("listen", ["nobody.invalid:0", "bücher.invalid:0", "192.0.2.1:10000"])
def test_an_address_that_is_not_of_this_host_is_one_line_on_stderr_and_exit_code_1(
    start_stub: StartStub, listen: str
) -> None:
    code, out, err = failure_of(start_stub("engine", "--listen", listen))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"instance-manager stub: cannot listen on {listen!r}: ")


def test_a_port_in_use_is_not_shared(start_stub: StartStub, start_listening: StartListening) -> None:
    _, port = start_listening()
    code, _, err = failure_of(start_stub("engine", "--listen", f"127.0.0.1:{port}"))
    assert code == 1
    assert err == f"instance-manager stub: cannot listen on '127.0.0.1:{port}': Address already in use\n"


def test_a_port_can_be_used_again_at_once(
    start_stub: StartStub, start_listening: StartListening, stop: Stop
) -> None:
    process, port = start_listening()
    # the side that closes first keeps the port in TIME_WAIT: here the stub, with its client still there
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert client.recv(1)
        assert stop(process)[0] == 0
        while client.recv(4096):  # closing on unread data would reset the connection
            pass
    again = start_stub("engine", "--listen", f"127.0.0.1:{port}")
    assert again.stdout
    assert again.stdout.readline().startswith(f"stub engine one listening on 127.0.0.1:{port} ")


def test_it_does_not_listen_before_it_is_ready(start_stub: StartStub, free_port: int) -> None:
    begun = time.monotonic()
    process = start_stub("engine", "--listen", f"127.0.0.1:{free_port}", "--ready-after", "0.4")
    assert process.stdout
    assert process.stdout.readline() == f"stub engine one listens in 0.4 s pid={process.pid}\n"
    assert refuses(free_port)
    line = process.stdout.readline()
    assert line == f"stub engine one listening on 127.0.0.1:{free_port} pid={process.pid}\n"
    assert time.monotonic() - begun >= 0.4
    socket.create_connection(("127.0.0.1", free_port)).close()


def test_an_address_taken_by_the_time_it_is_ready_is_exit_code_1(
    start_stub: StartStub, start_listening: StartListening
) -> None:
    _, port = start_listening()
    process = start_stub("engine", "--listen", f"127.0.0.1:{port}", "--ready-after", "0.1")
    code, out, err = failure_of(process)
    assert (code, out) == (1, f"stub engine one listens in 0.1 s pid={process.pid}\n")
    assert "Address already in use" in err


def test_a_stub_that_is_never_ready_runs_until_it_is_stopped(
    start_stub: StartStub, stop: Stop, free_port: int
) -> None:
    process = start_stub("engine", "--listen", f"127.0.0.1:{free_port}", "--never-ready")
    assert process.stdout
    assert process.stdout.readline() == f"stub engine one never listens pid={process.pid}\n"
    assert refuses(free_port)
    assert process.poll() is None
    assert stop(process) == (0, f"stub engine one ending on SIGTERM pid={process.pid}\n")
