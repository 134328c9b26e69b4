import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.patience import patience

PROGRAM = str(Path(sys.executable).with_name("instance-manager"))
DEADLINE = patience(20.0)


@pytest.fixture
def start_stub() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `instance-manager stub ARGUMENTS`; whatever still runs is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, stdout: int = subprocess.PIPE, name: str = "one") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, "stub", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "INSTANCE_MANAGER_NAME": name},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def start_listening(
    start_stub: Callable[..., subprocess.Popen[str]],
) -> Callable[..., tuple[subprocess.Popen[str], int]]:
    """Start an engine on a free port of the loopback, and wait until it listens there."""

    def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        process = start_stub("engine", "--listen", "127.0.0.1:0", *arguments)
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("stub engine one listening on 127.0.0.1:"), line
        return process, int(line.split(":")[1].split()[0])

    return start


@pytest.fixture
def stop() -> Callable[[subprocess.Popen[str]], tuple[int, str]]:
    """Send SIGTERM; returns the exit code and what was left on stdout (nothing if that is no pipe)."""

    def end(process: subprocess.Popen[str]) -> tuple[int, str]:
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read() if process.stdout else ""
        return process.wait(DEADLINE), rest

    return end


@pytest.fixture
def free_port() -> int:
    """Return a port nobody listens on, and that is nobody's source port: those are picked from 32768 up."""
    first = 20_000 + os.getpid() % 10_000  # elsewhere for each worker
    for port in range(first, first + 1_000):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                return port
    raise AssertionError("every port is taken")


@pytest.fixture
def wait_for_port() -> Callable[[int], None]:
    """Wait until a port of the loopback accepts connections."""

    def wait(port: int) -> None:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, f"nobody listens on port {port}"
            else:
                return

    return wait
