"""The daemon's own log never makes it wait or fail, whatever becomes of who reads it."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance_manager.log import Sink


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


def test_when_nobody_reads_lines_are_dropped_and_counted_and_a_torn_one_spoils_none(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    sink.write("x" * 10_000)
    sink.write("lost")
    assert sink.lost == 2
    os.read(reading, 10_000)
    sink.write("whole")
    assert os.read(reading, 100) == b"\nwhole\n"
    assert sink.lost == 0


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
