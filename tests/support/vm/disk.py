"""The disk of the machine: Debian 12 with systemd, container runtimes and the tests' requirements.

It is made once, kept in the user's cache, and made again when something that it is made of has changed.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.vm.machine import MachineError

ROOT = Path(__file__).parents[3]
VENV = "/opt/instance-manager"
"""Where the machine has the requirements, and gets the package."""
_LOCK = ROOT / "requirements" / "test.lock"
_AGENT = Path(__file__).with_name("agent.py")
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "initramfs-tools"),
    *("iproute2", "procps", "python3", "python3-venv", "crun", "runc"),
)
_TOOLS = {"debootstrap": "debootstrap", "mke2fs": "e2fsprogs"}
"""What it is made with, and the Debian packages that have it."""
_SIZE = "6G"
"""Of the file system; the file takes what is in it."""
_KEPT = 3
"""Disks in the cache, those used last: each checkout may have its own."""
_UNIT = """[Service]
ExecStart=/usr/bin/python3 /opt/agent.py /dev/virtio-ports/agent
Environment=HOME=/root
Restart=always
KillMode=process
"""


def cached() -> Path:
    """Return the folder with the files `disk`, `kernel` and `initrd`, which are made if they are not there.

    Raises:
        MachineError: They cannot be made.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instance-manager-vm"
    cache.mkdir(parents=True, exist_ok=True)
    parts = b"".join(part.read_bytes() for part in (_LOCK, _AGENT, Path(__file__)))
    folder = cache / hashlib.sha256(parts).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="new.", dir=cache) as new:
                _make(Path(new))
                (Path(new) / "made").rename(folder)
        folder.touch()
        disks = [path for path in cache.iterdir() if (path / "disk").exists()]
        for old in sorted(disks, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
            shutil.rmtree(old)
    return folder


def _make(work: Path) -> None:
    _check_tools()
    sys.stderr.write("vm: making the disk of the machine, once; this takes some minutes\n")
    root, made = work / "root", work / "made"
    made.mkdir()
    _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", "bookworm", root, _mirror())
    _install_requirements(root)
    system = root / "etc" / "systemd" / "system"
    (system / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    (system / "agent.service").write_text(_UNIT)
    (system / "multi-user.target.wants" / "agent.service").symlink_to("../agent.service")
    shutil.copy(_AGENT, root / "opt" / "agent.py")
    (root / "etc" / "fstab").write_text("/dev/vda / ext4 rw 0 0\n")
    (root / "etc" / "hostname").write_text("machine\n")
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    for name, pattern in (("kernel", "vmlinuz-*-cloud-*"), ("initrd", "initrd.img-*-cloud-*")):
        (found,) = (root / "boot").glob(pattern)
        shutil.copy(found, made / name)
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, made / "disk", _SIZE)


def _install_requirements(root: Path) -> None:
    """Out of wheels that this host gets: it has the configuration that pip may need to reach an index."""
    wheels = root / "tmp" / "wheels"
    _run(ROOT / "scripts" / "locked-wheels", wheels, _LOCK)
    shutil.copy(_LOCK, wheels)
    _run("chroot", root, "python3", "-m", "venv", VENV)
    pip = ("chroot", root, f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--find-links=/tmp/wheels")
    _run(*pip, "--require-hashes", f"--requirement=/tmp/wheels/{_LOCK.name}")
    shutil.rmtree(wheels)


def _mirror() -> str:
    """Return from where this host gets Debian: apt knows, however its sources are written."""
    found = _run(
        *("apt-get", "indextargets", "--format", "$(REPO_URI)"),
        *("Created-By: Packages", "Origin: Debian", "Codename: bookworm", "Component: main"),
    ).split()
    if not found:
        raise MachineError("cannot make the machine's disk: apt has no source for Debian bookworm (main)")
    return found[0]


def _check_tools() -> None:
    if os.geteuid() != 0:
        raise MachineError("cannot make the machine's disk: that needs root")
    packages = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if packages:
        raise MachineError(f"cannot make the machine's disk: apt-get install {' '.join(packages)}")


def _run(*command: str | Path) -> str:
    """Run a program and return what it prints.

    Raises:
        MachineError: It has failed, with the last that it has said.
    """
    done = subprocess.run(
        command,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-5:])
        raise MachineError(f"cannot make the machine's disk: {Path(command[0]).name} has failed:\n{last}")
    return done.stdout
