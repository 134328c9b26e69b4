"""What is relied on of control groups of version 2."""

import errno
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.patience import patience

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "io", "memory", "pids")
HOG = "memory = []\nwhile True: memory.append(b'x' * (1 << 20))"

Run = Callable[..., subprocess.Popen[bytes]]


def write(group: Path, name: str, text: str) -> str:
    """Write into a file of a group and return the name of the error; "" if there is none."""
    try:
        (group / name).write_text(text)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def enable(group: Path, *controllers: str) -> str:
    return write(group, "cgroup.subtree_control", " ".join(f"+{each}" for each in controllers))


def events(group: Path, name: str) -> dict[str, int]:
    return {word: int(number) for word, number in map(str.split, (group / name).read_text().splitlines())}


def make(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A group with all controllers, which the test has for itself."""
    assert enable(ROOT, *CONTROLLERS) == ""
    group = make(ROOT, tmp_path.name)
    yield group
    (group / "cgroup.kill").write_text("1")
    with (group / "cgroup.events").open() as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while "populated 1" in os.pread(file.fileno(), 100, 0).decode():
            assert poll.poll(patience(5) * 1000)
    for path, _, _ in os.walk(group, topdown=False):
        Path(path).rmdir()


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a program in a group; it is reaped after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(group: Path, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(group), *command],
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=patience(5))


def sleeper(run: Run, group: Path) -> subprocess.Popen[bytes]:
    """Start a program and return it once it is in the group."""
    process = run(group, "/bin/sh", "-c", "echo; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


def test_nobody_enters_a_group_that_distributes_memory(group: Path, run: Run) -> None:
    inner = make(group, "inner")
    assert enable(group, *CONTROLLERS) == ""
    process = sleeper(run, inner)
    assert write(group, "cgroup.procs", str(process.pid)) == "EBUSY"


def test_a_group_with_members_does_not_distribute_memory(group: Path, run: Run) -> None:
    process = sleeper(run, group)
    assert enable(group, "memory") == "EBUSY"
    assert write(make(group, "manager"), "cgroup.procs", str(process.pid)) == ""
    assert enable(group, "memory") == ""


def test_what_a_group_with_members_distributes_makes_its_children_unfit(group: Path, run: Run) -> None:
    process = sleeper(run, group)
    inner = make(group, "inner")
    assert enable(group, "pids") == ""
    assert (inner / "cgroup.type").read_text() == "domain invalid\n"
    assert write(inner, "cgroup.procs", str(process.pid)) == "ENOTSUP"
    assert write(group, "cgroup.subtree_control", "-pids") == ""
    assert write(inner, "cgroup.procs", str(process.pid)) == ""


def test_controllers_are_enabled_all_together_or_not_at_all(group: Path) -> None:
    inner = make(group, "inner")
    assert enable(group, "memory") == ""
    assert enable(inner, "memory", "pids") == "ENOENT"
    assert enable(inner, "nonsense") == "EINVAL"
    assert (inner / "cgroup.subtree_control").read_text() == ""


def test_limits_are_gone_when_a_controller_was_disabled(group: Path, run: Run) -> None:
    cell = make(group, "cell")
    assert enable(group, *CONTROLLERS) == ""
    sleeper(run, cell)
    assert write(cell, "memory.max", str(50 << 20)) == write(cell, "cpu.weight", "50") == ""
    assert write(group, "cgroup.subtree_control", "-memory -cpu") == ""
    assert enable(group, *CONTROLLERS) == ""
    assert ((cell / "memory.max").read_text(), (cell / "cpu.weight").read_text()) == ("max\n", "100\n")


@pytest.mark.parametrize("together", [False, True])
def test_running_out_of_memory_is_told_by_the_group(group: Path, run: Run, together: bool) -> None:
    cell = make(group, "cell")
    assert enable(group, "memory") == ""
    assert (
        write(cell, "memory.oom.group", str(int(together))) == write(cell, "memory.max", str(60 << 20)) == ""
    )
    bystander = sleeper(run, cell)
    assert run(cell, sys.executable, "-c", HOG).wait(patience(20)) == -9
    told = events(cell, "memory.events")
    assert (told["oom"] > 0, told["oom_kill"] > 0, told["oom_group_kill"]) == (True, True, int(together))
    if together:
        assert bystander.wait(patience(5)) == -9
    else:
        assert bystander.poll() is None


def test_running_out_of_the_memory_of_a_group_above_is_told_apart(group: Path, run: Run) -> None:
    cell = make(group, "cell")
    assert enable(group, "memory") == ""
    assert write(group, "memory.max", str(60 << 20)) == ""
    assert run(cell, sys.executable, "-c", HOG).wait(patience(20)) == -9
    assert (events(cell, "memory.events")["oom"], events(cell, "memory.events")["oom_kill"]) == (0, 1)
    assert events(group, "memory.events.local")["oom"] > 0


def test_a_group_takes_128_kilobytes_of_attributes(group: Path) -> None:
    os.setxattr(group, "user.one", b"x" * 60_000)
    os.setxattr(group, "user.two", b"x" * 60_000)
    with pytest.raises(OSError, match="No space left"):
        os.setxattr(group, "user.three", b"x" * 60_000)
    with pytest.raises(OSError, match="Argument list too long"):
        os.setxattr(group, "user.three", b"x" * 65_537)


def test_a_group_is_never_renamed_and_removed_though_it_is_open(group: Path) -> None:
    cell = make(group, "cell")
    with pytest.raises(PermissionError):
        cell.rename(group / "other")
    directory = os.open(cell, os.O_RDONLY | os.O_DIRECTORY)
    file = os.open("cgroup.events", os.O_RDONLY, dir_fd=directory)
    try:
        cell.rmdir()
        with pytest.raises(OSError, match="No such device"):
            os.pread(file, 100, 0)
        with pytest.raises(FileNotFoundError):
            os.open("cgroup.procs", os.O_RDONLY, dir_fd=directory)
    finally:
        os.close(file)
        os.close(directory)
