"""Spawning: what a child is given, and how its end is reported."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.process import handles
from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import ExitStatus
from instance_manager.platform import proc
from tests.support.processes import Workshop, descriptors, exists, open_workshop, wait_for

SLEEP = ("/bin/sleep", "1000")


def status_field(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(f"no {field}")


def signals(pid: int, field: str) -> set[int]:
    bits = int(status_field(pid, field), 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


async def opened_by_a_child(workshop: Workshop) -> dict[int, str]:
    """Return what a child has open once it runs: for a moment before, what exec closes is seen too."""
    started = workshop.shell("kill -STOP $$")
    wait_for(started.pid, os.WSTOPPED)
    found = descriptors(started.pid)
    await workshop.end()
    return found


@pytest.fixture
def low_limit() -> Iterator[int]:
    """Lower the limit of open files for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield 256
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def filled() -> Iterator[list[int]]:
    """Descriptors that a test opens, closed afterwards."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


async def test_a_child_has_dev_null_as_stdin_and_the_output_as_stdout_and_stderr(workshop: Workshop) -> None:
    pipe = descriptors()[workshop.output.fd]
    assert await opened_by_a_child(workshop) == {0: os.devnull, 1: pipe, 2: pipe}


async def test_a_child_inherits_no_descriptor_that_this_process_inherited() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        async with open_workshop() as workshop:
            assert sorted(await opened_by_a_child(workshop)) == [0, 1, 2]
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_child_leads_a_session_of_its_own(workshop: Workshop) -> None:
    started = workshop.spawn(*SLEEP)
    assert os.getsid(started.pid) == os.getpgid(started.pid) == started.pid
    await workshop.end()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_child_ignores_and_blocks_no_signal_even_if_this_process_does(when: str) -> None:
    handler = signal.getsignal(signal.SIGINT)

    def meddle() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        if when == "before":
            meddle()
        async with open_workshop() as workshop:
            if when == "after":
                meddle()
            started = workshop.spawn(*SLEEP)
            assert signals(started.pid, "SigBlk") == set()
            # glibc keeps two signals for itself and has every child ignore them.
            assert signals(started.pid, "SigIgn") <= {32, 33}
            await workshop.end()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)


async def test_a_child_finds_its_name_and_uuid_and_no_loader_variable_in_its_environment() -> None:
    given = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": "/nowhere",
        "LD_PRELOAD": "",
        "OLD_X": "kept",
        "INSTANCE_MANAGER_UUID": "another",
    }
    async with open_workshop(given) as workshop:
        started = workshop.spawn("/usr/bin/env", name="vol-e-0")
        await started.exited()
        found = dict(line.split("=", 1) for line in (await workshop.output.ended()).decode().splitlines())
        assert {key: found[key] for key in ("INSTANCE_MANAGER_NAME", "INSTANCE_MANAGER_UUID", "OLD_X")} == {
            "INSTANCE_MANAGER_NAME": "vol-e-0",
            "INSTANCE_MANAGER_UUID": started.uuid,
            "OLD_X": "kept",
        }
        assert [key for key in found if key.startswith("LD_")] == []
        assert found["PATH"] == given["PATH"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "No such file or directory"),
        ("a file in the place of a folder", "Not a directory"),
        ("directory", "Permission denied"),
        ("not executable", "Permission denied"),
        ("empty", "Exec format error"),
        ("text without an interpreter", "Exec format error"),
        ("interpreter that is missing", "No such file or directory"),
        ("too long a command line", "Argument list too long"),
    ],
)
async def test_a_binary_that_cannot_be_executed_is_told_with_the_reason(
    workshop: Workshop, tmp_path: Path, kind: str, reason: str
) -> None:
    binary = tmp_path / "binary"
    arguments: tuple[str, ...] = ()
    match kind:
        case "directory":
            binary.mkdir()
        case "a file in the place of a folder":
            binary.touch()
            binary /= "more"
        case "not executable":
            binary.write_text("#!/bin/sh\n")
        case "empty" | "text without an interpreter" | "interpreter that is missing":
            first = "#!/nowhere/sh\n" if kind == "interpreter that is missing" else "exit 0\n"
            binary.write_text("" if kind == "empty" else first)
            binary.chmod(0o755)
        case "too long a command line":
            binary, arguments = Path("/bin/true"), ("x" * 100_000,) * 100
    with pytest.raises(CannotExecuteError) as error:
        workshop.spawn(str(binary), *arguments)
    assert str(error.value) == f"cannot execute {binary}: {reason}"
    assert workshop.marked() == []


async def test_a_binary_without_a_path_is_looked_for_on_the_path(workshop: Workshop) -> None:
    assert await workshop.spawn("true").exited() == ExitStatus(0)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", ExitStatus(code=0)),
        ("exit 3", ExitStatus(code=3)),
        ("exit 255", ExitStatus(code=255)),
        ("kill -SEGV $$", ExitStatus(signal="SIGSEGV")),
        ("kill -KILL $$", ExitStatus(signal="SIGKILL")),
        ("kill -37 $$", ExitStatus(signal="signal 37")),
        ("trap 'exit 7' TERM; kill -TERM $$", ExitStatus(code=7)),
    ],
)
async def test_the_end_of_a_child_is_reported_once(
    workshop: Workshop, script: str, status: ExitStatus
) -> None:
    started = workshop.shell(script)
    assert started.reports == []  # later, never before the caller has the child
    await started.exited()
    later = workshop.shell("exit 9")
    await later.exited()
    assert started.reports == [status]
    assert later.reports == [ExitStatus(code=9)]


async def test_the_ends_of_many_children_at_once_are_all_reported_once(workshop: Workshop) -> None:
    started = [workshop.shell(f"exit {number % 256}") for number in range(50)]
    for each in started:
        await each.exited()
    assert [each.reports for each in started] == [[ExitStatus(code=number % 256)] for number in range(50)]


async def test_a_child_that_ended_before_the_event_loop_looked_is_reported(workshop: Workshop) -> None:
    started = workshop.spawn("/bin/true")
    wait_for(started.pid, os.WEXITED | os.WNOWAIT)
    assert started.reports == []
    assert await started.exited() == ExitStatus(code=0)


async def test_a_stopped_child_can_be_killed(workshop: Workshop) -> None:
    started = workshop.spawn(*SLEEP)
    started.child.signal("SIGSTOP", session=False)
    wait_for(started.pid, os.WSTOPPED)
    assert "stopped by a signal" in started.child.describe()
    started.child.signal("SIGKILL", session=True)
    assert await started.exited() == ExitStatus(signal="SIGKILL")


@pytest.mark.parametrize("flag", [handles._SIGNAL_PROCESS_GROUP, 1 << 20], ids=["by pidfd", "old kernel"])
async def test_a_signal_to_the_session_reaches_the_process_group_and_one_without_does_not(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, flag: int
) -> None:
    monkeypatch.setattr(handles, "_SIGNAL_PROCESS_GROUP", flag)
    script = "trap : USR1; (trap 'echo got it' USR1; echo begun; while :; do sleep 1000 & wait; done) &"
    started = workshop.shell(f"{script} while :; do wait; done")
    assert await workshop.output.line() == "begun"
    started.child.signal("SIGUSR1", session=False)
    started.child.signal("SIGUSR1", session=True)
    assert await workshop.output.line() == "got it"
    started.child.signal("SIGKILL", session=True)
    assert await started.exited() == ExitStatus(signal="SIGKILL")
    assert await started.child.end_tree() is None
    assert "got it" not in (await workshop.output.ended()).decode()


async def test_a_signal_to_a_child_that_has_ended_hits_nothing(workshop: Workshop) -> None:
    started = workshop.spawn("/bin/true")
    wait_for(started.pid, os.WEXITED | os.WNOWAIT)
    started.child.signal("SIGTERM", session=True)
    assert await started.exited() == ExitStatus(code=0)
    started.child.signal("SIGTERM", session=True)


async def test_a_child_that_is_let_go_lives_on_and_is_not_reported() -> None:
    async with open_workshop() as workshop:
        started = workshop.spawn(*SLEEP)
        workshop.spawner.close()
        os.kill(started.pid, signal.SIGKILL)
        wait_for(started.pid, os.WEXITED)
        workshop.spawner.open()
    assert started.reports == []


async def test_many_children_leave_no_descriptor_behind(workshop: Workshop) -> None:
    await workshop.spawn("/bin/true").exited()
    before = descriptors()
    for _ in range(200):
        started = workshop.spawn("/bin/true")
        await started.exited()
        assert await started.child.end_tree() is None
    assert descriptors().items() <= before.items()


async def test_no_child_is_started_when_few_descriptors_are_left(
    workshop: Workshop, low_limit: int, filled: list[int]
) -> None:
    while not filled or filled[-1] < low_limit - 64 - 1:
        filled.append(os.open(os.devnull, os.O_WRONLY))
    with pytest.raises(ResourceExhaustedError, match=r"cannot start one: 192 of the 256 descriptors"):
        workshop.spawn("/bin/true", output=filled[-1])
    assert workshop.marked() == []
    os.close(filled.pop())
    assert await workshop.spawn("/bin/true", output=filled[-1]).exited() == ExitStatus(code=0)


@pytest.mark.parametrize("place", ["no descriptor", "no stat"])
async def test_a_child_that_cannot_be_watched_is_not_left_behind(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    spawned: list[int] = []

    def no_descriptor(pid: int) -> int:
        spawned.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    def no_stat(pid: int) -> None:
        spawned.append(pid)
        raise proc.UnreadableError("it cannot be read")

    before = descriptors()
    with monkeypatch.context() as patch:
        if place == "no descriptor":
            patch.setattr(os, "pidfd_open", no_descriptor)
        else:
            patch.setattr(proc, "read_stat", no_stat)
        with pytest.raises(ResourceExhaustedError, match="cannot start one: "):
            workshop.spawn(*SLEEP)
    (pid,) = spawned
    assert not exists(pid)
    assert workshop.marked() == []
    assert proc.children_of(os.getpid()) == []
    assert descriptors() == before
