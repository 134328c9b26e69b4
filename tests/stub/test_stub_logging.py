import errno
import itertools
import os
import pty
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.patience import patience

StartStub = Callable[..., subprocess.Popen[str]]
StartListening = Callable[..., tuple[subprocess.Popen[str], int]]
Stop = Callable[[subprocess.Popen[str]], tuple[int, str]]


def numbered(number: int, length: int) -> str:
    return f"{number:012d} {'x' * length}"[:length] + "\n"


@pytest.mark.parametrize(
    ("lines", "length"),
    [(20_000, 100), (3_000, 12), (3_000, 13), (1_000, 4095), (1_000, 4096), (20, 300_000)],
)
def test_as_fast_as_it_can_no_numbered_line_is_lost_or_torn(
    start_listening: StartListening, stop: Stop, lines: int, length: int
) -> None:
    process, _ = start_listening(
        "--log-rate", "max", "--log-lines", str(lines), "--log-line-bytes", str(length)
    )
    assert process.stdout
    for number in range(1, lines + 1):
        assert process.stdout.readline() == numbered(number, length)
    assert stop(process) == (0, f"stub engine one ending on SIGTERM pid={process.pid}\n")


def test_lines_without_end_are_whole_when_it_is_stopped(start_listening: StartListening, stop: Stop) -> None:
    process, _ = start_listening("--log-rate", "max")
    assert process.stdout
    assert process.stdout.readline() == numbered(1, 100)
    code, rest = stop(process)
    *lines, last = rest.splitlines(keepends=True)
    assert code == 0
    assert lines == [numbered(number, 100) for number in range(2, len(lines) + 2)]
    # the last line may have found the pipe full
    assert last in {f"stub engine one ending on SIGTERM pid={process.pid}\n", numbered(len(lines) + 2, 100)}


def test_lines_come_at_the_rate_asked_for(start_listening: StartListening, stop: Stop) -> None:
    begun = time.monotonic()
    process, _ = start_listening("--log-rate", "100", "--log-lines", "50")
    assert process.stdout
    for number in range(1, 51):
        assert process.stdout.readline() == numbered(number, 100)
    assert time.monotonic() - begun >= 50 / 100
    assert stop(process)[0] == 0


def test_lines_are_logged_before_it_is_ready_and_while_it_ends(start_stub: StartStub) -> None:
    process = start_stub(
        "engine", "--listen", "127.0.0.1:0", "--never-ready", "--log-rate", "200", "--stop-after", "0.2"
    )
    assert process.stdout
    assert process.stdout.readline().startswith("stub engine one never listens ")
    assert process.stdout.readline() == numbered(1, 100)
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read().splitlines(keepends=True)
    ending = rest.index(f"stub engine one ending on SIGTERM in 0.2 s pid={process.pid}\n")
    assert len(rest) > ending + 1
    rest.pop(ending)
    assert rest == [numbered(number, 100) for number in range(2, len(rest) + 2)]


@pytest.fixture(params=[errno.ENOSPC, errno.EPIPE, errno.EIO], ids=errno.errorcode.get)
def failing_stdout(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return a descriptor on which each write fails, with the error of the parameter."""
    if request.param == errno.ENOSPC:
        fd = os.open("/dev/full", os.O_WRONLY)
    else:
        other, fd = os.pipe() if request.param == errno.EPIPE else pty.openpty()
        os.close(other)
    with pytest.raises(OSError, match=os.strerror(request.param)):
        os.write(fd, b"x")
    yield fd
    os.close(fd)


@pytest.mark.parametrize("rate", ["0", "100", "max"])
def test_a_failing_stdout_does_not_end_it(
    start_stub: StartStub,
    wait_for_port: Callable[[int], None],
    free_port: int,
    failing_stdout: int,
    rate: str,
) -> None:
    listen = f"127.0.0.1:{free_port}"
    process = start_stub("engine", "--listen", listen, "--log-rate", rate, stdout=failing_stdout)
    wait_for_port(free_port)
    wait_for_port(free_port)  # it came back from its first writes
    process.send_signal(signal.SIGTERM)
    assert process.wait(patience(20)) == 0
    assert process.stderr
    assert process.stderr.read() == ""


def test_a_stdout_that_fails_for_a_while_is_used_again(
    start_stub: StartStub, stop: Stop, wait_for_port: Callable[[int], None], free_port: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        process = start_stub(
            "engine", "--listen", f"127.0.0.1:{free_port}", "--log-rate", "100", stdout=file.fileno()
        )
    wait_for_port(free_port)

    def wait_until(reached: Callable[[], bool]) -> None:
        while not reached():
            wait_for_port(free_port)  # an event the stub has to get to: it is alive

    # like a full disk, but one that the test can empty
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    size = log.stat().st_size
    until = time.monotonic() + 0.3
    wait_until(lambda: time.monotonic() > until)
    assert log.stat().st_size == size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: log.stat().st_size > size)
    assert stop(process)[0] == 0

    lines = [line for line in log.read_text().splitlines(keepends=True) if not line.startswith("stub")]
    numbers = [int(line.split()[0]) for line in lines]
    assert lines == [numbered(number, 100) for number in numbers]
    lost = max(after - before for before, after in itertools.pairwise([0, *numbers])) - 1
    assert lost > 0
