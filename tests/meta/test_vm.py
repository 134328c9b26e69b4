"""The machine that scripts/vm runs, but for the machine: a stand-in for qemu has only its agent."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.patience import patience
from tests.support.vm import __main__ as command_line
from tests.support.vm import disk, fake_qemu
from tests.support.vm.machine import QEMU, Machine, MachineError

LIMIT = patience(20)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are the only ones, besides those that any shell needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def stand_in(tools: Path) -> Path:
    """The stand-in for qemu."""
    program = tools / QEMU
    program.symlink_to(fake_qemu.__file__)
    return program


def running_in(folder: Path) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(folder)]


@pytest.fixture
def machine(tmp_path: Path, stand_in: Path) -> Iterator[Machine]:
    assert stand_in.exists()
    machine = Machine(tmp_path / "machine")
    machine.start(tmp_path)
    yield machine
    try:
        # What commands have left may take a moment to end.
        deadline = time.monotonic() + LIMIT
        while len(processes := running_in(tmp_path / "machine")) != 2:
            assert time.monotonic() < deadline, processes
    finally:
        machine.stop()
    assert not machine.running
    psutil.wait_procs(processes, timeout=LIMIT)
    assert not any(process.is_running() for process in processes)


def test_a_command_tells_its_output_as_it_comes_and_its_status(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(go := tmp_path / "go")
    told: list[str] = []

    def output(text: str) -> None:
        told.append(text)
        if text == "one ü\n":
            go.write_text("\n")

    status = machine.run(f"echo one ü; read line <{go}; echo two >&2; exit 7", seconds=LIMIT, output=output)
    assert (status, "".join(told)) == (7, "one ü\ntwo\n")


def test_a_command_is_killed_at_its_limit_with_all_that_it_has_started(machine: Machine) -> None:
    told: list[str] = []
    assert machine.run("sleep 1000 & echo $!; wait", seconds=0.5, output=told.append) == 124
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int("".join(told))).wait(LIMIT)


def test_what_a_command_leaves_running_does_not_hold_up_its_answer(machine: Machine) -> None:
    told: list[str] = []
    assert machine.run("sleep 1000 & echo $!", seconds=LIMIT, output=told.append) == 0
    psutil.Process(int("".join(told))).kill()


def test_what_somebody_has_left_unread_is_no_answer_to_the_next(machine: Machine) -> None:
    def leave(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.run("echo one; sleep 0.3; echo two; exit 3", seconds=LIMIT, output=leave)
    told: list[str] = []
    assert (machine.run("echo three", seconds=LIMIT, output=told.append), told) == (0, ["three\n"])


def test_a_file_arrives_whole_and_can_be_run(machine: Machine, tmp_path: Path) -> None:
    data = b"#!/bin/sh\nexit 5\n" + bytes(range(256)) * 1000
    machine.put(data, str(tmp_path / "new" / "program"))
    assert (tmp_path / "new" / "program").read_bytes() == data
    assert machine.run(str(tmp_path / "new" / "program"), seconds=LIMIT) == 5


def test_a_file_that_cannot_be_written_is_told(machine: Machine) -> None:
    with pytest.raises(MachineError, match=r"cannot do that: .*File exists"):
        machine.put(b"data", "/dev/null/file")


@pytest.mark.usefixtures("stand_in")
def test_a_machine_that_does_not_boot_tells_the_end_of_its_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU_COMPLAINT", "no such device")
    machine = Machine(tmp_path / "machine")
    with pytest.raises(MachineError) as raised:
        machine.start(tmp_path)
    assert str(raised.value) == (
        f"cannot start a machine: it takes no command; {QEMU} said:\n  no such device; "
        "its console ended with:\n  Linux boots\n  Kernel panic"
    )
    assert not machine.running


def test_without_qemu_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"^cannot start a machine: .* apt-get install qemu-system-x86$"):
        Machine(tmp_path).start(tmp_path)


def test_without_the_tools_for_its_disk_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(MachineError, match=r"apt-get install debootstrap e2fsprogs$"):
        disk.cached()
    assert [path.name for path in (tmp_path / "instance-manager-vm").iterdir()] == ["lock"]


def test_a_command_for_a_machine_that_was_not_started_fails_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "STARTED", tmp_path)
    with pytest.raises(MachineError, match=r"^no machine runs: scripts/vm start$"):
        command_line.main(["run", "true"])
