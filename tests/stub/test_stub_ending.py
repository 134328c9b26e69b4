import ctypes
import fcntl
import os
import select
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.patience import patience

StartStub = Callable[..., subprocess.Popen[str]]
StartListening = Callable[..., tuple[subprocess.Popen[str], int]]
Stop = Callable[[subprocess.Popen[str]], tuple[int, str]]

PR_SET_CHILD_SUBREAPER = 36
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def adopting() -> Iterator[None]:
    """Orphans of the test's processes become its children, so that it can reap them."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


def ignored_signals(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = int(next(line for line in lines if line.startswith("SigIgn:")).split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_stop_signal_ends_it_with_code_0_and_a_line(
    start_listening: StartListening, number: signal.Signals
) -> None:
    process, _ = start_listening()
    assert process.stdout
    process.send_signal(number)
    assert process.stdout.read() == f"stub engine one ending on {number.name} pid={process.pid}\n"
    assert process.wait(patience(20)) == 0


def test_another_exit_code_after_a_signal_can_be_asked_for(
    start_listening: StartListening, stop: Stop
) -> None:
    process, _ = start_listening("--stop-exit", "9")
    assert stop(process)[0] == 9


def test_ignored_signals_do_not_end_it_and_the_others_do(start_listening: StartListening, stop: Stop) -> None:
    process, port = start_listening("--ignore", "SIGINT", "--ignore", "SIGHUP", "--ignore", "SIGUSR1")
    ignored = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
    assert ignored_signals(process.pid) >= ignored
    assert signal.SIGTERM not in ignored_signals(process.pid)
    for number in ignored:
        process.send_signal(number)
    socket.create_connection(("127.0.0.1", port)).close()
    assert stop(process) == (0, f"stub engine one ending on SIGTERM pid={process.pid}\n")


def test_a_slow_stub_serves_until_its_time_is_over_whatever_else_it_is_sent(
    start_listening: StartListening,
) -> None:
    process, port = start_listening("--stop-after", "0.4")
    assert process.stdout
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == f"stub engine one ending on SIGINT in 0.4 s pid={process.pid}\n"
    process.send_signal(signal.SIGTERM)
    socket.create_connection(("127.0.0.1", port)).close()
    assert process.stdout.read() == ""
    assert process.wait(patience(20)) == 0
    assert time.monotonic() - begun >= 0.4


@pytest.mark.parametrize("code", [0, 3, 255])
def test_it_exits_at_once_with_the_code_it_is_told(start_stub: StartStub, code: int) -> None:
    process = start_stub("engine", "--listen", "127.0.0.1:0", "--exit", str(code))
    out, err = process.communicate(timeout=patience(20))
    assert (out, err) == (f"stub engine one exiting with code {code} pid={process.pid}\n", "")
    assert process.returncode == code


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--exit", "7"], 7)])
def test_it_exits_after_the_time_it_is_told(
    start_listening: StartListening, arguments: list[str], code: int
) -> None:
    begun = time.monotonic()
    process, port = start_listening("--exit-after", "0.3", *arguments)
    assert process.stdout
    socket.create_connection(("127.0.0.1", port)).close()
    assert process.stdout.read() == f"stub engine one exiting with code {code} pid={process.pid}\n"
    assert process.wait(patience(20)) == code
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize("name", [None, "SIGKILL", "SIGTERM"])
def test_it_crashes_with_the_signal_it_is_told(start_listening: StartListening, name: str | None) -> None:
    arguments = ["--crash-signal", name] if name else []
    begun = time.monotonic()
    process, _ = start_listening("--crash-after", "0.3", *arguments)
    assert process.stdout
    number = signal.Signals[name or "SIGSEGV"]
    assert process.stdout.read() == f"stub engine one crashing with {number.name} pid={process.pid}\n"
    assert process.wait(patience(20)) == -number
    assert time.monotonic() - begun >= 0.3


@pytest.mark.usefixtures("adopting")
def test_helpers_outlive_it_and_hold_stdout_but_not_the_port(start_stub: StartStub, free_port: int) -> None:
    listen = f"127.0.0.1:{free_port}"
    process = start_stub("engine", "--listen", listen, "--helpers", "2")
    assert process.stdout
    helpers = [int(process.stdout.readline().removeprefix("helper pid=")) for _ in range(2)]
    try:
        assert process.stdout.readline().startswith("stub engine one listening on ")
        for pid in helpers:
            assert os.getsid(pid) == pid
            assert ignored_signals(pid) >= set(STOP_SIGNALS)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"stub engine one ending on SIGTERM pid={process.pid}\n"
        assert process.wait(patience(20)) == 0
        hangup = select.poll()
        hangup.register(process.stdout, 0)
        assert hangup.poll(0) == []

        again = start_stub("engine", "--listen", listen)
        assert again.stdout
        assert again.stdout.readline().startswith(f"stub engine one listening on {listen} ")
    finally:
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
    # adopted: they were no children of the stub any more, and its end has reparented none
    assert [os.waitpid(pid, 0)[1] for pid in helpers] == [signal.SIGKILL] * 2
    assert process.stdout.read() == ""


@pytest.mark.parametrize("pages", [1, 100])  # whole pages: the pipe is full when every byte of it is
def test_a_full_stdout_neither_stops_it_from_serving_nor_from_ending(
    start_listening: StartListening, pages: int
) -> None:
    line_bytes = pages * select.PIPE_BUF - 1
    process, port = start_listening("--log-rate", "max", "--log-line-bytes", str(line_bytes))
    assert process.stdout
    room = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
    held = bytearray(4)
    while int.from_bytes(held, "little") <= room - select.PIPE_BUF:
        # each connection is an event the stub has to get to, so this is no idle loop
        socket.create_connection(("127.0.0.1", port)).close()
        fcntl.ioctl(process.stdout, termios.FIONREAD, held)
    with socket.create_connection(("127.0.0.1", port), timeout=patience(20)) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert client.recv(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(patience(20)) == 0
