"""What is relied on of container runtimes: `exec` works in a container that has divided its control group."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import patience

DIVIDE = """
cd /sys/fs/cgroup && mkdir manager cells &&
echo $$ >manager/cgroup.procs &&
echo "+cpu +io +memory +pids" >cgroup.subtree_control && mkdir cells/one &&
python3 -c "import os; os.setxattr('cells/one', 'user.name', b'value')" && echo divided && exec sleep 1000
"""
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]


def bundle(folder: Path, cgroup: str) -> None:
    """Describe a container with the files of the machine, which may write its control group."""
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", DIVIDE]}
    config["process"]["capabilities"] = dict.fromkeys(config["process"]["capabilities"], CAPABILITIES)
    config["root"]["readonly"] = False
    for mount in config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", "rw"]
    config["linux"]["cgroupsPath"] = cgroup
    (folder / "config.json").write_text(json.dumps(config))


@contextlib.contextmanager
def container(runtime: str, folder: Path) -> Iterator[str]:
    """Run it and return its name once it has divided its control group."""
    name = f"{runtime}-test"
    (root := folder / "rootfs").mkdir()
    subprocess.run(["mount", "--bind", "/", root], check=True)
    with subprocess.Popen([runtime, "run", name], cwd=folder, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == "divided\n"
            yield name
        finally:
            # Which then removes the container.
            subprocess.run([runtime, "kill", name, "KILL"], check=False, timeout=patience(20))
            running.wait(patience(20))
            subprocess.run(["umount", root], check=True)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_programs_that_are_brought_in_join_the_first_process(runtime: str, tmp_path: Path) -> None:
    bundle(tmp_path, f"/{runtime}-test")
    with container(runtime, tmp_path) as name:
        brought = subprocess.run(
            [runtime, "exec", name, "cat", "/proc/self/cgroup"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=patience(20),
        )
    assert brought.stdout == "0::/manager\n"
    assert not Path("/sys/fs/cgroup", f"{runtime}-test").exists()
