"""A machine of its own, run by qemu in software, without KVM.

What it writes to its disk is gone when it ends.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from instance_manager.guard.proc import start_time
from tests.support.patience import patience

QEMU = "qemu-system-x86_64"
_HARDWARE = (
    *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"),
    *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "file:console.log"),
    *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
    *("-chardev", "socket,path=agent.sock,server=on,wait=off,id=agent"),
    *("-device", "virtserialport,chardev=agent,name=agent"),
)
_KERNEL_LINE = "root=/dev/vda rw console=ttyS0 systemd.unified_cgroup_hierarchy=1"
_LOOK = 0.2
"""Seconds between two tries to reach a machine that boots."""
_requests = itertools.count(time.time_ns())
"""Numbers of requests: what somebody before has left unread is no answer to ours."""


class MachineError(Exception):
    """A machine cannot be made, started or used: one line, and below it what was told of the reason."""


class Machine:
    """A machine that has its socket and its logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._qemu: subprocess.Popen[bytes] | None = None
        """If it was started here."""

    def start(self, disk: Path, *, apart: bool = False) -> None:
        """Boot a disk, made by `disk.py`, and wait until it takes commands.

        Args:
            disk: The folder with the disk, its kernel and its initrd.
            apart: Whether the machine is to live on when this program ends.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path("agent.sock").unlink(missing_ok=True)
        boot = ("-kernel", f"{disk}/kernel", "-initrd", f"{disk}/initrd", "-append", _KERNEL_LINE)
        drive = f"file={disk}/disk,format=raw,if=virtio,snapshot=on,cache=unsafe"
        with self._path("qemu.log").open("wb") as log:
            try:
                self._qemu = qemu = subprocess.Popen(
                    [QEMU, *_HARDWARE, *boot, "-drive", drive],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=apart,
                )
            except FileNotFoundError:
                raise MachineError(
                    f"cannot start a machine: there is no {QEMU}; on Debian: apt-get install qemu-system-x86"
                ) from None
        self._path("qemu.json").write_text(json.dumps([qemu.pid, start_time(qemu.pid)]))
        try:
            self._wait_for_boot(qemu)
        except BaseException:
            qemu.kill()
            qemu.wait()
            raise

    def _wait_for_boot(self, qemu: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + patience(240)
        while qemu.poll() is None and time.monotonic() < deadline:
            try:
                self.run("true", seconds=deadline - time.monotonic())
            except OSError:
                time.sleep(_LOOK)  # its socket is not there yet
            except MachineError:
                break
            else:
                return
        raise MachineError(
            "cannot start a machine: it takes no command"
            + self._told("qemu.log", f"; {QEMU} said", 1)
            + self._told("console.log", "; its console ended with", 8)
        )

    def run(self, command: str, *, seconds: float, output: Callable[[str], object] = lambda _: None) -> int:
        """Run a command of the shell as root and return its status, 124 if it was killed at the limit.

        Args:
            command: What the shell runs.
            seconds: The limit.
            output: Gets what the command writes, as it comes.
        """
        return self._ask({"run": command, "seconds": seconds}, b"", seconds, output)

    def put(self, data: bytes, path: str) -> None:
        """Write an executable file."""
        self._ask({"put": path, "size": len(data)}, data, patience(60), lambda _: None)

    def stop(self) -> None:
        """End it at once, without a shutdown; it may be gone already."""
        if qemu := self._process():
            qemu.terminate()
            qemu.wait(patience(30))
        if self._qemu:
            self._qemu.wait()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        """Return its qemu. The number that is in the file may have become that of another process."""
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            pid, begun = json.loads(self._path("qemu.json").read_text())
            process = psutil.Process(pid)
            return process if start_time(pid) == begun else None
        return None

    def _ask(
        self, request: dict[str, Any], data: bytes, seconds: float, output: Callable[[str], object]
    ) -> int:
        """Send a request and return the status in its answer.

        Raises:
            OSError: The machine is not there.
            MachineError: It does not answer, or could not do it.
        """
        number = next(_requests)
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(seconds + patience(60))
            # Relative: the path of a socket has at most 107 bytes.
            channel.connect(os.path.relpath(self._path("agent.sock")))
            channel.sendall(json.dumps(request | {"id": number}).encode() + b"\n" + data)
            try:
                for line in channel.makefile("rb"):
                    part = json.loads(line)
                    if part["id"] != number:
                        continue
                    if "error" in part:
                        raise MachineError(f"the machine cannot do that: {part['error']}")
                    if "status" in part:
                        return int(part["status"])
                    output(part["output"])
            except TimeoutError:
                raise MachineError("the machine does not answer any more") from None
        raise MachineError("the machine has ended")

    def _told(self, name: str, introduction: str, count: int) -> str:
        """Return the last lines of a log behind words that introduce them; nothing if there are none."""
        with contextlib.suppress(FileNotFoundError):
            lines = self._path(name).read_text(errors="replace").splitlines()
            if told := [line.strip() for line in lines if line.strip()][-count:]:
                return "\n  ".join([f"{introduction}:", *told])
        return ""

    def _path(self, name: str) -> Path:
        return self._folder / name
