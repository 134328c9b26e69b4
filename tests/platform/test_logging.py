"""The daemon's own log never makes it wait or fail, whatever becomes of who reads it."""

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance_manager.platform.logging import Sink
from tests.support.patience import patience


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def test_lines_arrive_as_they_are(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    for line, arrives in (("a", b"a\n"), ("ä\udcff", b"\xc3\xa4\\udcff\n")):
        sink.write(line)
        assert os.read(reading, 100) == arrives
    assert sink.lost == 0


def test_what_a_reader_is_too_slow_for_waits_and_arrives_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    lines = [str(number) * 1000 for number in range(10)] + ["long" * 10_000]
    for line in lines:
        sink.write(line)
    sent = "".join(f"{line}\n" for line in lines).encode()
    arrived = b""
    while len(arrived) < len(sent):
        arrived += os.read(reading, 1 << 20)
        sink.drain(0.1)
    assert arrived == sent
    assert sink.lost == 0


async def test_the_event_loop_writes_what_waits_when_nothing_more_is_logged(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    sink.write("x" * 4095)
    sink.write("last")
    assert os.read(reading, 5000) == b"x" * 4095 + b"\n"
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(reading, readable.set)
    await readable.wait()
    asyncio.get_running_loop().remove_reader(reading)
    assert os.read(reading, 5000) == b"last\n"


def test_what_there_is_no_room_for_is_dropped_and_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    line = "x" * (sink.ROOM // 2)
    for _ in range(4):
        sink.write(line)
    assert sink.lost == 2
    os.read(reading, 4096)
    sink.write("fits")
    assert sink.lost == 0


async def test_when_the_reader_goes_what_waits_is_dropped_and_the_next_reader_sees_whole_lines(
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    sink = Sink(writing)
    sink.write("x" * 10_000)
    os.close(reading)
    sink.write("lost")
    assert sink.lost == 2
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reading, 10_000) == b"x" * 4096
    sink.write("whole")
    assert os.read(reading, 100) == b"\nwhole\n"
    assert sink.lost == 0
    for fd in (reading, writing):
        os.close(fd)


async def test_the_event_loop_does_not_go_on_with_a_reader_that_is_gone(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    sink, resumed = Sink(writing), asyncio.Event()

    def resume(loop: asyncio.AbstractEventLoop) -> None:
        Sink._resume(sink, loop)
        resumed.set()

    monkeypatch.setattr(sink, "_resume", resume)
    sink.write("x" * 10_000)
    os.close(reading)
    async with asyncio.timeout(patience(10)):
        await resumed.wait()
    assert sink.lost == 1
    assert not asyncio.get_running_loop().remove_writer(sink._writer.fd)


def test_a_reader_that_is_gone_is_no_failure(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    os.close(reading)
    sink.write("lost")
    sink.write("lost")
    assert sink.lost == 2


def test_a_full_disk_is_no_failure() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = Sink(fd)
    sink.write("lost")
    os.close(fd)
    assert sink.lost == 1


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        file.write(b"before\n")
        file.flush()
        Sink(file.fileno()).write("after")
    assert (tmp_path / "log").read_text() == "before\nafter\n"


def test_what_libraries_report_is_part_of_the_log() -> None:
    program = (
        "import logging, warnings\n"
        "from instance_manager.platform.logging import configure\n"
        "configure(debug=False)\n"
        "logging.getLogger('asyncio').error('no %s', 'descriptors')\n"
        "logging.getLogger('asyncio').info('not of interest')\n"
        "warnings.warn('odd')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('grpc').exception('failed')\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == ""
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert [(line["level"], line["event"].splitlines()[0]) for line in lines[::2]] == [
        ("error", "no descriptors"),
        ("error", "failed"),
    ]
    assert "odd" in lines[1]["event"]
    assert lines[2]["exception"][0]["exc_type"] == "ZeroDivisionError"


RAISES = """
import gc, logging, threading
import structlog
from instance_manager.platform.background import Background
from instance_manager.platform.logging import configure

configure(debug=False)

class Odd:
    def __del__(self):
        fail("hun" + "ter2")

def fail(secret):
    copies = {"key": [secret]}
    try:
        raise LookupError("inner")
    except LookupError as error:
        raise ValueError("outer") from error

def logged(log):
    try:
        fail("hun" + "ter2")
    except ValueError as error:
        log(error)

logged(lambda error: structlog.get_logger().exception("an error"))
logged(lambda error: logging.getLogger("grpc").exception("an error"))
logged(lambda error: Background().failed("work", error))
odd = Odd(); del odd; gc.collect()
thread = threading.Thread(target=fail, args=("hun" + "ter2",)); thread.start(); thread.join()
fail("hun" + "ter2")
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_no_value_of_a_variable_is_logged_with_an_error(terminal: bool) -> None:
    """Locals of a frame may be credentials."""
    reading, writing = os.openpty() if terminal else os.pipe()
    with subprocess.Popen([sys.executable, "-c", RAISES], stderr=writing) as program:
        os.close(writing)
        printed = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(reading, 1 << 16):
                printed += chunk
    os.close(reading)
    assert program.returncode == 1
    assert printed.count(b"outer") >= 6
    assert b"in fail" in printed or b'"name": "fail"' in printed, "it is told where the error was"
    assert b"hunter2" not in printed
