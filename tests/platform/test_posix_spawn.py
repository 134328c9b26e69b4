"""A process starts in a cgroup, or does not start."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance_manager.platform.posix_spawn import spawn_into_cgroup
from tests.support.cells import own_root

pytestmark = pytest.mark.into_cgroup


@pytest.fixture
def cell() -> Iterator[Path]:
    with own_root() as root:
        (root / "cell").mkdir()
        yield root / "cell"
        (root / "cell").rmdir()


@pytest.fixture
def entrance(cell: Path) -> Iterator[int]:
    descriptor = os.open(cell, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def printed(entrance: int, *words: str, environment: dict[str, str] | None = None) -> tuple[str, int]:
    """Run a program in the cgroup; return what it prints and how it ends."""
    reading, writing = os.pipe()
    try:
        pid = spawn_into_cgroup(entrance, words[0], words, environment or {}, [(writing, 1)])
    finally:
        os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_program_is_in_the_cgroup_from_its_first_instruction(entrance: int, cell: Path) -> None:
    text, status = printed(entrance, "sh", "-c", "cat /proc/self/cgroup; exit 3")
    (own,) = (line for line in text.splitlines() if line.startswith("0::"))
    assert own.endswith(f"/{cell.parent.name}/cell")
    assert status == 3


def test_words_and_environment_arrive_as_they_are(entrance: int) -> None:
    text, _ = printed(entrance, "sh", "-c", 'echo "$0|$1|$A"', "grün", "two words", environment={"A": "b=c"})
    assert text == "grün|two words|b=c\n"


def test_the_session_is_its_own_and_no_signal_is_blocked_or_ignored(entrance: int) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    former = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        # No shell: it blocks signals itself while it waits.
        text, _ = printed(entrance, "cat", "/proc/self/status", "/proc/self/stat")
    finally:
        signal.signal(signal.SIGUSR2, former)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    *status, stat = text.splitlines()
    pid, _, _, _, _, session, *_ = stat.split()
    assert session == pid
    masks = {line[:6]: int(line.split()[1], 16) for line in status if line.startswith(("SigBlk", "SigIgn"))}
    assert (masks["SigBlk"], masks["SigIgn"]) == (0, 0)


@pytest.mark.parametrize(
    ("program", "number"), [("/nonexistent", errno.ENOENT), ("/etc/passwd", errno.EACCES)]
)
def test_what_cannot_be_executed_is_told(entrance: int, program: str, number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        spawn_into_cgroup(entrance, program, [program], {}, [])
    assert raised.value.errno == number


def test_in_a_cgroup_that_was_removed_nothing_starts(tmp_path: Path) -> None:
    with own_root() as root:
        (root / "cell").mkdir()
        descriptor = os.open(root / "cell", os.O_RDONLY | os.O_DIRECTORY)
        (root / "cell").rmdir()
        with pytest.raises(OSError):  # noqa: PT011 - the number differs between kernels
            spawn_into_cgroup(descriptor, "touch", ["touch", f"{tmp_path}/executed"], {}, [])
        os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_a_word_with_a_null_byte_is_refused(entrance: int) -> None:
    with pytest.raises(ValueError, match="null byte"):
        spawn_into_cgroup(entrance, "true", ["true", "a\0b"], {}, [])
