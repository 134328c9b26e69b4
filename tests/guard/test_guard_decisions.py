"""What the guard decides about its children, without a guard around it."""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from instance_manager.guard import child, ending, proc
from instance_manager.guard.ending import GIVE_UP_DELAY, Ending
from instance_manager.guard.guard import Guard
from instance_manager.guard.helpers import Helpers
from instance_manager.guard.log import Log
from instance_manager.guard.options import parse
from instance_manager.guard.records import ExitRecords

Start = Callable[[str], "subprocess.Popen[bytes]"]
WITHIN = 20.0
GRACE = 1000.0


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a script; only what was started so are children of the guard, until they are reaped."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(script: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            ["/bin/sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE, bufsize=0
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    monkeypatch.setattr(
        proc, "living_children", lambda: [each.pid for each in started if each.returncode is None]
    )
    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_an_instance_that_is_stopped_can_end_when_it_is_asked(start: Start) -> None:
    instance = start("echo; exec sleep 1000")
    instance.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, instance.pid, os.WSTOPPED)
    Ending(GRACE, time.monotonic(), Log()).step(time.monotonic())
    assert instance.wait(WITHIN) == -signal.SIGINT


def test_instances_that_the_daemon_has_killed_get_no_other_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = start("trap '' INT; echo; while :; do sleep 1000; done")
    monkeypatch.setattr(proc, "is_killed", lambda _: True)
    Ending(GRACE, time.monotonic(), Log()).step(time.monotonic())
    assert instance.wait(WITHIN) == -signal.SIGKILL


def test_an_instance_that_nothing_ends_is_given_up_in_the_end(
    start: Start, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start("echo; exec sleep 1000")
    monkeypatch.setattr(ending, "_signal", lambda *_: None)
    now = time.monotonic()
    end = Ending(1.0, now, Log())
    for seconds in (0.0, 1.0, 1.0 + GIVE_UP_DELAY - 0.1):
        end.step(now + seconds)
        assert not end.over
    end.step(now + 1.0 + GIVE_UP_DELAY)
    assert end.over
    assert "instances left behind" in capfd.readouterr().err


def test_a_child_that_has_ended_but_is_not_reaped_is_no_living_one() -> None:
    process = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert process.pid not in proc.living_children()
    finally:
        process.wait(WITHIN)


def test_a_child_of_another_process_is_nobodys_reason_to_go_on() -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert process.pid in proc.living_children()
        assert grandchild not in proc.living_children()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_if_instances_cannot_be_counted_one_is_assumed_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(proc, "living_instances", fail)
    options, log = parse(["--", "daemon"]), Log()
    records = ExitRecords("/nowhere", log)
    guard = Guard(
        ["/bin/true"], {}, options, records=records, log=log, helpers=Helpers([], log, set()), signals=set()
    )
    assert guard._instances() == 1


@pytest.mark.timeout(30)
def test_a_daemon_that_cannot_be_watched_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def no_descriptor(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_descriptor)
    try:
        with pytest.raises(OSError, match="Too many open files"):
            child.start(["/bin/sleep", "1000"], os.environ, keep_ignored=set(), blocked=set())
        (pid,) = started
        assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110 - as the guard does
    finally:
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
