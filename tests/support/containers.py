"""Containers of the image, through the client of a container engine."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import patience

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = "instance-manager-test:latest"
TOOLS_IMAGE = "instance-manager-test:tools"
STOP_SECONDS = 30


def docker(*args: str, timeout: float = 60) -> str:
    """Run the client, bounded; its output, or a failure that shows what it said."""
    done = subprocess.run(
        [DOCKER, *args], capture_output=True, text=True, timeout=patience(timeout), check=False
    )
    assert done.returncode == 0, f"docker {' '.join(args)}\n{done.stdout}{done.stderr}"
    return done.stdout


def inspect(target: str) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", target))
    return dict(found)


class Container:
    """A running daemon without any network but its own loopback."""

    def __init__(self, options: Sequence[str] = (), command: Sequence[str] = (), image: str = IMAGE) -> None:
        # The image's health check, more often: the test waits for its first verdict.
        run = ("run", "--detach", "--network=none", "--health-interval=1s")
        self.id = docker(*run, *options, image, *command).strip()

    def cli(self, *args: str) -> str:
        return docker("exec", self.id, "instance-manager", *args)

    def listed(self) -> dict[str, Any]:
        return dict(json.loads(self.cli("process", "list", "-o", "json")))

    def create_replica(self, name: str) -> None:
        self.cli(
            *("process", "create", "--name", name, "--binary", "/usr/local/bin/instance-manager"),
            *("--port-count", "1", "--port-args", "--listen,0.0.0.0:", "--", "stub", "replica"),
        )
        self.cli("process", "wait", "--name", name, "--for", "running", "--timeout", "30")

    def commands(self) -> list[str]:
        """The command lines of the processes inside, without those that `docker exec` added."""
        return [line.strip() for line in docker("top", self.id, "-eo", "pid,args").splitlines()[1:]]

    def pid_namespace(self) -> Path:
        return Path(f"/proc/{inspect(self.id)['State']['Pid']}/ns/pid").readlink()

    def wait_healthy(self, within: float) -> None:
        """Follow the engine's events until the health check is content."""
        follow = [
            *(DOCKER, "events", "--since", "0", "--filter", f"container={self.id}"),
            *("--filter", "event=health_status", "--filter", "event=die", "--format", "{{.Action}}"),
        ]
        with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as events:
            assert events.stdout is not None
            give_up = threading.Timer(within, events.kill)
            give_up.start()
            try:
                verdicts = (line.strip() for line in events.stdout)
                seen = next((verdict for verdict in verdicts if verdict != "health_status: unhealthy"), None)
            finally:
                give_up.cancel()
                events.kill()
        assert seen is not None, f"not healthy within {within} s"
        assert seen == "health_status: healthy"

    def logs(self) -> str:
        both = subprocess.run([DOCKER, "logs", self.id], capture_output=True, text=True, check=False)
        return both.stdout + both.stderr


def in_namespace(pid_namespace: Path) -> list[int]:
    """Every process of this machine in that pid namespace."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            if link.readlink() == pid_namespace:
                found.append(int(link.parts[2]))
    return found


def docker_status(*arguments: str) -> int:
    return subprocess.run(
        [DOCKER, *arguments], capture_output=True, check=False, timeout=patience(30)
    ).returncode


@contextlib.contextmanager
def running(started: Container) -> Iterator[Container]:
    try:
        started.wait_healthy(within=30)
        yield started
    finally:
        print(started.logs())  # noqa: T201 - pytest shows it with a failure
        docker("rm", "--force", "--volumes", started.id)


def shell(image: str, script: str) -> str:
    return docker("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script)


def build(tag: str, base_variable: str, *options: str) -> str:
    """Build the image on a base, without network; skips the test where that is impossible."""
    base = os.environ.get(base_variable)
    if base is None:
        pytest.skip(f"{base_variable} is not set; .ci/container-engine tells it")
    if shutil.which(DOCKER) is None:
        pytest.skip(f"there is no {DOCKER} here; .ci/container-engine installs it")
    engine = subprocess.run(
        [DOCKER, "info"], capture_output=True, text=True, timeout=patience(60), check=False
    )
    if engine.returncode != 0:
        pytest.skip(f"no container engine answers ({engine.stderr.strip()}); .ci/container-engine starts one")
    built = subprocess.run(
        ["scripts/build-image", "--offline", "--base", base, "--tag", tag, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience(540),
        check=False,
    )
    assert built.returncode == 0, built.stdout
    return tag
