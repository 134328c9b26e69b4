"""The image in the pod that a Longhorn manager makes of it: its arguments, environment, mounts and probe.

The node is a folder: no container here sees a device or a folder of this machine.
"""

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, fill
from tests.support.containers import (
    DOCKER,
    STOP_SECONDS,
    Container,
    docker,
    docker_status,
    in_namespace,
    inspect,
    running,
    shell,
)
from tests.support.patience import patience

CONTROL = "/var/lib/longhorn"
V1 = ("instance-manager", "--debug", "daemon", "--listen", ":8500")
V2 = (
    *(
        "start-spdk-tgt",
        "--spdk-log",
        "/log/spdk_tgt.log",
        "--spdk-cpumask",
        "0x1",
        "--spdk-core-number",
        "1",
    ),
    *("--spdk-memory-size", "1024", "--longhorn-control-path", CONTROL, "--enable-spdk", "--debug"),
    *("daemon", "--spdk-enabled", "--listen", "0.0.0.0:8500"),
)
PROBE_PERIOD = 11.0
"""Seconds between two probes; they may take 10."""
# Without --privileged, which not every engine allows: what binding the node's folders needs.
PRIVILEGES = (
    "--cap-add=SYS_ADMIN",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
)
NODE_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
TGTD = """#!/bin/sh
exec 9>/run/tgtd.lock
flock -n 9 || exit 1
echo "tgtd $*"
exec sleep 100000
"""

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]


class Node:
    """The folders of a node that a pod sees."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "host"
        self.tls = folder / "tls"
        self.tgtd = folder / "tgtd"
        for name in ("dev/longhorn", "sys/of-the-node", "lib/modules/of-the-node"):
            (self.root / name).mkdir(parents=True)
        for name, minor in NODE_DEVICES.items():
            os.mknod(self.root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            (self.root / "dev" / name).chmod(0o666)
        for name in ("engine-binaries", "metadata", "unix-domain-socket", "logs"):
            self.path(name).mkdir(parents=True)
        shutil.copy("/bin/sleep", self.path("engine-binaries"))
        self.tls.mkdir()
        self.tgtd.write_text(TGTD)
        self.tgtd.chmod(0o755)

    def path(self, name: str) -> Path:
        return self.root / CONTROL.removeprefix("/") / name

    def content(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def options(self, *more: str, engine: str = "v1") -> list[str]:
        mounts = {
            self.root: "/host",
            self.path("engine-binaries"): "/engine-binaries/",
            self.path("metadata"): "/metadata/",
            self.path("unix-domain-socket"): f"/host{CONTROL}/unix-domain-socket",
            self.tls: "/tls-files/",
            self.path("logs"): "/log",
            self.tgtd: "/usr/local/sbin/tgtd",
        }
        environment = {
            "TLS_DIR": "/tls-files/",
            "POD_IP": "127.0.0.1",
            "DATA_ENGINE": engine,
            "LONGHORN_DATA_PATH": CONTROL,
            "LONGHORN_CONTROL_PATH": CONTROL,
            "TZ": "Europe/Berlin",
        }
        return [
            *(f"--volume={source}:{target}" for source, target in mounts.items()),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *more,
        ]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def pod(image: str, node: Node) -> Iterator[Container]:
    del image
    with running(Container(node.options(*PRIVILEGES), V1)) as started:
        yield started


def probe_of(image: str) -> str:
    """The probe's command, for the ports that the image says it has."""
    ports = sorted(port.partition("/")[0] for port in inspect(image)["Config"]["ExposedPorts"])
    return " && ".join(f"nc -zv localhost {port} > /dev/null 2>&1" for port in ports)


def probed(pod: Container, probe: str) -> int:
    """Probe as the kubelet does; returns the exit code."""
    done = subprocess.run(
        [DOCKER, "exec", pod.id, "/bin/sh", "-c", probe],
        capture_output=True,
        timeout=patience(30),
        check=False,
    )
    return done.returncode


def parent_command(pod: Container, command: str) -> str:
    """The command line of the parent of the one process whose own begins like this."""
    lines = docker("top", pod.id, "-eo", "pid,ppid,args").splitlines()[1:]
    by_pid = {pid: (parent, args) for pid, parent, args in (line.split(None, 2) for line in lines)}
    (parent,) = [parent for parent, args in by_pid.values() if args.startswith(command)]
    return by_pid[parent][1]


def test_it_starts_with_the_arguments_of_the_pod_and_sees_the_nodes_devices(pod: Container) -> None:
    assert docker("exec", pod.id, "ls", "/dev").split() == sorted([*NODE_DEVICES, "longhorn"])
    assert docker("exec", pod.id, "ls", "/sys", "/lib/modules").split().count("of-the-node") == 2
    assert '"folders": "/dev, /sys, /lib/modules"' in pod.logs()
    pod.cli("process", "create", "--name", "e", "--binary", "/engine-binaries/sleep", "--", "1000")
    pod.cli("process", "wait", "e", "--for", "running", "--timeout", "30")


def test_tgtd_belongs_to_no_engine_and_comes_back(pod: Container) -> None:
    assert "instance_manager.guard.keeper" in parent_command(pod, "sleep 100000")
    pod.cli("process", "create", "--name", "e", "--binary", "/engine-binaries/sleep", "--", "1000")
    pod.cli("process", "wait", "e", "--for", "running", "--timeout", "30")
    pod.cli("process", "delete", "--name", "e")
    pod.cli("process", "wait", "e", "--for", "deleted", "--timeout", "30")
    (tgtd,) = [line.split()[0] for line in pod.commands() if "sleep 100000" in line]

    os.kill(int(tgtd), 9)

    wait_until(lambda: pod.logs().count('"line": "tgtd -f"') == 2, pod)
    assert pod.logs().count('"event": "helper died"') == 1
    assert "instance_manager.guard.keeper" in parent_command(pod, "sleep 100000")


def test_without_privileges_it_says_so_in_one_line_and_serves(image: str, node: Node) -> None:
    with running(Container(node.options(), V1)) as pod:
        (told,) = [line for line in pod.logs().splitlines() if "folders cannot be bound" in line]
        assert "Operation not permitted" in told
        assert probed(pod, probe_of(image)) == 0


@pytest.mark.parametrize("secret", [False, True], ids=["plain", "tls"])
def test_the_probe_is_answered_while_instances_are_created(
    image: str, node: Node, secret: bool, sized: Callable[[int, int], int], full: bool
) -> None:
    """With --full at the probe's own period, so that there is time for 10 of them."""
    if secret:
        fill(node.tls, Authority().signed())
    with running(Container(node.options(*PRIVILEGES), V1)) as pod:
        assert tls(pod) == secret
        loop = (
            "for i in $(seq 50); do instance-manager process create"
            " --name e$i --binary /engine-binaries/sleep -- 1000 || exit; done"
        )
        with subprocess.Popen(
            [DOCKER, "exec", pod.id, "sh", "-c", loop], stdout=subprocess.DEVNULL
        ) as creating:
            probe = probe_of(image)
            for _ in range(10):
                begun = time.monotonic()
                assert probed(pod, probe) == 0, pod.logs()
                if full:
                    time.sleep(max(0.0, begun + PROBE_PERIOD - time.monotonic()))
            many = f"for i in $(seq {sized(50, 190)}); do {probe} || exit; done"
            assert probed(pod, many) == 0, pod.logs()
            assert creating.wait(timeout=patience(120)) == 0
        assert len(pod.listed()) == 50


def tls(pod: Container) -> bool:
    (serving,) = [line for line in pod.logs().splitlines() if '"event": "serving"' in line]
    return '"tls": true' in serving


def test_sigterm_ends_instances_first_and_tgtd_last(pod: Container) -> None:
    pod.cli("process", "create", "--name", "e", "--binary", "/engine-binaries/sleep", "--", "1000")
    pod.cli("process", "wait", "e", "--for", "running", "--timeout", "30")
    pid_namespace = pod.pid_namespace()

    docker("stop", "-t", str(STOP_SECONDS), pod.id, timeout=STOP_SECONDS + 30)

    assert inspect(pod.id)["State"]["ExitCode"] == 0
    assert in_namespace(pid_namespace) == []
    logs = pod.logs()
    order = ('"event": "stopped"', '"event": "daemon ended"', '"event": "ending helpers"', '"helper ended"')
    places = [logs.index(words) for words in order]
    assert places == sorted(places)


def test_the_pod_of_the_v2_data_engine_says_in_one_line_what_is_missing(image: str, node: Node) -> None:
    done = subprocess.run(
        [DOCKER, "run", "--rm", "--network=none", *node.options(*PRIVILEGES, engine="v2"), image, *V2],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 2
    (told,) = [line for line in done.stderr.splitlines() if "cannot start" in line]
    assert "spdk_tgt" in told
    assert "folders" not in done.stderr
    assert "helper" not in done.stderr
    assert "spdk_tgt" in shell(image, "instance-manager-v2-prestop")


# What the start of the Go image does on the same node, and what would be in its way.
GO_START = """
set -e
for name in dev sys lib/modules; do mkdir -p /$name; mount --rbind /host/$name /$name; done
test -d /dev/longhorn -a -d /sys/of-the-node -a -d /lib/modules/of-the-node
tgtd -f > /tmp/tgtd.log & until grep -q tgtd /tmp/tgtd.log; do kill -0 $!; done; kill $!
for port in 8500 8501 8502 8503; do
  nc -lk 127.0.0.1 $port & until nc -z 127.0.0.1 $port; do kill -0 $!; done; kill $!
done
echo started
"""


def test_nothing_is_in_the_way_of_the_image_that_comes_after_it(image: str, node: Node) -> None:
    before = node.content()
    with running(Container(node.options(*PRIVILEGES), V1)) as pod:
        pod.cli("process", "create", "--name", "e", "--binary", "/engine-binaries/sleep", "--", "1000")
        docker("stop", "-t", str(STOP_SECONDS), pod.id, timeout=STOP_SECONDS + 30)
    assert node.content() == before
    run = ("run", "--rm", "--network=none", *node.options(*PRIVILEGES), "--entrypoint=bash")
    assert docker(*run, image, "-c", GO_START).splitlines()[-1] == "started"
    assert node.content() == before


def test_a_container_that_is_started_again_binds_and_serves_again(pod: Container) -> None:
    docker("kill", pod.id)
    docker("start", pod.id)
    wait_until(lambda: docker_status("exec", pod.id, "instance-manager", "health") == 0, pod)
    assert docker("exec", pod.id, "ls", "/dev").split() == sorted([*NODE_DEVICES, "longhorn"])
    assert docker("exec", pod.id, "grep", "-c", " /dev ", "/proc/self/mountinfo") == "2\n"


def wait_until(look: Callable[[], bool], pod: Container) -> None:
    deadline = time.monotonic() + patience(30)
    while not look():
        assert time.monotonic() < deadline, pod.logs()


def test_the_image_with_tools_has_all_that_a_v1_volume_needs(tools_image: str) -> None:
    assert shell(tools_image, "/usr/local/libexec/image-tools check tools") == ""
    assert shell(tools_image, "/usr/local/libexec/image-tools missing tools") == ""
    assert shell(tools_image, "instance-manager --version").startswith("instance-manager ")


def test_the_plain_image_has_the_program_of_the_probe(image: str) -> None:
    assert shell(image, "/usr/local/libexec/image-tools check plain; command -v nc").endswith("nc\n")
