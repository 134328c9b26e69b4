"""The container image: built without network, run, used through its own command line, ended.

Needs a container engine on this machine and base images; .ci/container-engine gives both:
settings=$(.ci/container-engine) && eval "$settings"
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.containers import (
    IMAGE,
    STOP_SECONDS,
    Container,
    docker,
    docker_status,
    in_namespace,
    inspect,
    running,
    shell,
)

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]


@pytest.fixture
def container(image: str) -> Iterator[Container]:
    del image
    with running(Container()) as started:
        yield started


def test_both_names_of_the_program_run(image: str) -> None:
    run = ("run", "--rm", "--network=none")
    assert docker(*run, image, "--version").startswith("instance-manager ")
    assert docker(*run, "--entrypoint=longhorn-instance-manager", image, "--version").strip()


def test_it_tells_of_its_origin(image: str) -> None:
    config = inspect(image)["Config"]
    env = dict(line.split("=", 1) for line in config["Env"])
    labels = config["Labels"]
    assert env["INSTANCE_MANAGER_GIT_COMMIT"] == labels["org.opencontainers.image.revision"] != "unknown"
    assert env["INSTANCE_MANAGER_BUILD_DATE"] == labels["org.opencontainers.image.created"] != "unknown"
    assert time.strptime(env["INSTANCE_MANAGER_BUILD_DATE"], "%Y-%m-%dT%H:%M:%SZ")
    assert set(config["ExposedPorts"]) == {f"{port}/tcp" for port in range(8500, 8504)}


def test_it_has_no_compiler_no_pip_and_no_sources_of_the_build(image: str) -> None:
    found = shell(image, 'for c in gcc cc g++ make pip pip3; do command -v "$c"; done; ls -d /src; true')
    assert found == ""
    for python in ("python3", "/opt/instance-manager/bin/python"):
        find_pip = "import importlib.util as u; print(u.find_spec('pip'))"
        assert shell(image, f'{python} -c "{find_pip}"') == "None\n"


def test_a_replica_runs_in_it_from_its_creation_to_its_deletion(container: Container) -> None:
    container.cli("health")
    assert inspect(IMAGE)["Config"]["Labels"]["org.opencontainers.image.revision"] in container.cli("version")
    container.create_replica("r1")

    replica = container.listed()["r1"]
    assert replica["status"]["state"] == "running"
    assert replica["status"]["uuid"]

    container.cli("process", "delete", "--name", "r1")
    container.cli("process", "wait", "--name", "r1", "--for", "deleted", "--timeout", "30")
    assert container.listed() == {}
    assert not [command for command in container.commands() if "stub" in command or "defunct" in command]


def test_it_survives_that_its_daemon_is_killed(container: Container) -> None:
    container.create_replica("r1")
    before = container.listed()
    replica = [line for line in container.commands() if "stub replica" in line]
    (daemon,) = [line for line in container.commands() if " daemon " in line and " guard " not in line]

    os.kill(int(daemon.split()[0]), signal.SIGKILL)

    deadline = time.monotonic() + 30
    while docker_status("exec", container.id, "instance-manager", "health") != 0:
        assert time.monotonic() < deadline, container.logs()
    assert container.listed() == before
    assert [line for line in container.commands() if "stub replica" in line] == replica


def test_sigterm_ends_it_and_all_that_runs_in_it(container: Container, tmp_path: Path) -> None:
    container.create_replica("r1")
    container.create_replica("r2")
    pid_namespace = container.pid_namespace()
    assert len(in_namespace(pid_namespace)) >= len(["daemon", "r1", "r2"])

    docker("stop", "-t", str(STOP_SECONDS), container.id, timeout=STOP_SECONDS + 30)

    assert inspect(container.id)["State"]["ExitCode"] == 0
    assert in_namespace(pid_namespace) == []
    # The kernel would have killed them with PID 1: what they logged tells that the daemon ended them.
    docker("cp", f"{container.id}:/var/log/instances", str(tmp_path))
    logs = {path.stem: path.read_text() for path in tmp_path.glob("instances/*.log")}
    assert {name for name, text in logs.items() if "ending on SIG" in text} == {"r1", "r2"}, logs


@pytest.fixture
def of_kubernetes(image: str, tmp_path: Path) -> Iterator[Container]:
    """A container with the arguments, environment and mounts of the DaemonSet, without certificates."""
    del image
    manifest = yaml.safe_load((ROOT / "deploy/kubernetes/daemonset.yaml").read_text())
    (spec,) = manifest["spec"]["template"]["spec"]["containers"]
    options = [f"--env={each['name']}={each['value']}" for each in spec["env"]]
    for number, mount in enumerate(spec["volumeMounts"]):
        # Docker creates the directory of a mount below another one in that one.
        folder = tmp_path / str(number)
        folder.mkdir()
        options.append(f"--volume={folder}:{mount['mountPath']}")
    (tmp_path / "0/var/lib/longhorn/engine-binaries").mkdir(parents=True)
    with running(Container(options, spec["args"])) as started:
        yield started


def test_it_runs_as_kubernetes_runs_it(of_kubernetes: Container) -> None:
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9500/readyz').status)"
    assert docker("exec", of_kubernetes.id, "python3", "-c", ask) == "200\n"

    refused = docker_status(
        *("exec", of_kubernetes.id, "instance-manager"),
        *("process", "create", "--name", "r1", "--binary", "/bin/sleep", "--", "9"),
    )
    assert refused != 0

    copy = "cp /bin/sleep /engine-binaries; cp /bin/sleep /host/var/lib/longhorn/engine-binaries"
    docker("exec", of_kubernetes.id, "sh", "-c", copy)
    for name, folder in (("e", "/engine-binaries"), ("r", "/host/var/lib/longhorn/engine-binaries")):
        of_kubernetes.cli("process", "create", "--name", name, "--binary", f"{folder}/sleep", "--", "1000")
        of_kubernetes.cli("process", "wait", name, "--for", "running", "--timeout", "30")


def test_a_daemon_that_hangs_is_found_as_the_page_says_and_the_instances_run_on(
    of_kubernetes: Container,
) -> None:
    docker("exec", of_kubernetes.id, "cp", "/bin/sleep", "/engine-binaries")
    of_kubernetes.cli("process", "create", "--name", "e", "--binary", "/engine-binaries/sleep", "--", "1000")
    of_kubernetes.cli("process", "wait", "e", "--for", "running", "--timeout", "30")
    before = of_kubernetes.listed()
    (find,) = re.findall(r'sh -c "(grep .*)"$', (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE)

    found = docker("exec", of_kubernetes.id, "sh", "-c", find).split()
    guard, daemon = sorted(found, key=lambda path: int(path.split("/")[2]))
    assert guard == "/proc/1/cmdline"
    docker("exec", of_kubernetes.id, "sh", "-c", f"kill -9 {daemon.split('/')[2]}")

    deadline = time.monotonic() + 30
    while docker_status("exec", of_kubernetes.id, "instance-manager", "health") != 0:
        assert time.monotonic() < deadline, of_kubernetes.logs()
    assert of_kubernetes.listed() == before


def test_a_restarted_container_tells_what_was_lost(of_kubernetes: Container) -> None:
    docker("exec", of_kubernetes.id, "cp", "/bin/sleep", "/engine-binaries")
    of_kubernetes.cli("process", "create", "--name", "e", "--binary", "/engine-binaries/sleep", "--", "1000")
    of_kubernetes.cli("process", "wait", "e", "--for", "running", "--timeout", "30")
    before = of_kubernetes.listed()["e"]["status"]

    docker("kill", of_kubernetes.id)
    docker("start", of_kubernetes.id)

    deadline = time.monotonic() + 30
    while docker_status("exec", of_kubernetes.id, "instance-manager", "health") != 0:
        assert time.monotonic() < deadline, of_kubernetes.logs()
    after = of_kubernetes.listed()["e"]["status"]
    assert (after["state"], after["uuid"]) == ("error", before["uuid"])
