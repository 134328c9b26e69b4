"""The DaemonSet passes what the program takes, and agrees with the image and the pages about it."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from instance_manager.api.listeners import Offset, listen_address
from instance_manager.app.supervisor import GIVE_UP_DELAY
from instance_manager.cli.daemon import cli as daemon_command
from instance_manager.cli.root import root
from instance_manager.daemon.run import _RPC_GRACE
from tests.support.daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
(MANIFEST,) = yaml.safe_load_all((ROOT / "deploy/kubernetes/daemonset.yaml").read_text())
POD: dict[str, Any] = MANIFEST["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENVIRONMENT = {each["name"]: each["value"] for each in CONTAINER["env"]}
MOUNTS = {each["mountPath"]: each for each in CONTAINER["volumeMounts"]}
VOLUMES = {each["name"]: each for each in POD["volumes"]}
PORTS = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}


def parsed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The daemon's options for a command line that begins with `daemon`, read by the program itself."""
    for name in ("INSTANCE_MANAGER_DAEMON_STATE_DIR", "TLS_DIR"):
        monkeypatch.delenv(name, raising=False)
    # Whether a folder of this machine may be read is beside the point.
    monkeypatch.setattr(click.Path, "convert", lambda kind, value, *_: kind.coerce_path_result(value))
    assert command[0] == "daemon"
    return daemon_command.make_context("daemon", command[1:]).params


def image_command() -> list[str]:
    (line,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return list(json.loads(line))


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return parsed(CONTAINER["args"], monkeypatch)


def environment_of(command: click.Command, prefix: str) -> set[str]:
    found = set()
    for option in command.params:
        if isinstance(option, click.Option):
            found |= {str(option.envvar or f"{prefix}_{option.name}".upper())}
    return found


def test_the_program_takes_each_environment_variable() -> None:
    known = environment_of(root, "INSTANCE_MANAGER")
    known |= environment_of(daemon_command, "INSTANCE_MANAGER_DAEMON")
    assert set(ENVIRONMENT) <= known
    assert {"TLS_DIR", "INSTANCE_MANAGER_DAEMON_METRICS_LISTEN"} <= known


def test_what_the_image_says_by_default_stays_true(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_image = parsed(image_command(), monkeypatch)
    for name in ("listen", "logs_dir", "state_dir", "shutdown_grace", "port_range", "on_stop"):
        assert options[name] == by_image[name], name
    # The guard is the entry point, and the daemon its argument.
    assert 'ENTRYPOINT ["instance-manager", "guard", "--"]' in DOCKERFILE
    assert "command" not in CONTAINER


def test_its_ports_are_those_that_the_program_listens_on(options: dict[str, Any]) -> None:
    port = listen_address(options["listen"]).port
    assert {
        "grpc": port,
        "grpc-proxy": port + Offset.PROXY,
        "grpc-disk": port + Offset.DISK,
        "grpc-instances": port + Offset.INSTANCE,
        "metrics": int(options["metrics_listen"].rpartition(":")[2]),
    } == PORTS
    (exposed,) = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    assert {int(port) for port in exposed.split()} == {port + offset for offset in Offset}


def test_what_kubernetes_asks_is_not_on_loopback(options: dict[str, Any]) -> None:
    for name in ("listen", "metrics_listen"):
        assert options[name].startswith("0.0.0.0:"), name


async def test_the_probe_asks_for_a_page_that_there_is(daemon: Daemon) -> None:
    probe = CONTAINER["readinessProbe"]["httpGet"]
    assert probe["port"] == "metrics"
    status, _ = await daemon.http(probe["path"])
    assert status == 200


def test_no_probe_ends_the_instances() -> None:
    assert not {"livenessProbe", "startupProbe"} & set(CONTAINER)


def test_nothing_replaces_or_evicts_a_pod_by_itself() -> None:
    assert MANIFEST["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert POD["priorityClassName"] == "system-node-critical"
    assert "limits" not in CONTAINER["resources"]
    assert not [name for name, each in VOLUMES.items() if "sizeLimit" in each.get("emptyDir", {})]


def test_the_guard_is_the_first_process_of_a_namespace_of_its_own() -> None:
    assert not {"hostPID", "shareProcessNamespace"} & set(POD)


def test_kubernetes_waits_until_the_daemon_has_ended_everything(options: dict[str, Any]) -> None:
    assert POD["terminationGracePeriodSeconds"] > options["shutdown_grace"] + GIVE_UP_DELAY + _RPC_GRACE


def test_each_directory_that_the_daemon_uses_is_mounted(options: dict[str, Any]) -> None:
    assert str(options["logs_dir"]) in MOUNTS
    assert str(options["state_dir"]) in MOUNTS
    assert ENVIRONMENT["TLS_DIR"] in MOUNTS
    assert f"mkdir -p {options['logs_dir']}" in DOCKERFILE


def test_programs_are_allowed_below_both_paths_of_the_engine_binaries(options: dict[str, Any]) -> None:
    on_node = VOLUMES["engine-binaries"]["hostPath"]["path"]
    assert VOLUMES["host"]["hostPath"]["path"] == "/"
    assert {str(each) for each in options["binary_roots"]} == {"/engine-binaries", f"/host{on_node}"}
    assert MOUNTS["/engine-binaries"]["name"] == "engine-binaries"
    assert MOUNTS["/host"]["name"] == "host"


def test_each_mount_has_its_volume() -> None:
    assert {each["name"] for each in MOUNTS.values()} == set(VOLUMES)


def test_the_secret_is_optional() -> None:
    tls = VOLUMES[MOUNTS[ENVIRONMENT["TLS_DIR"]]["name"]]
    assert tls["secret"] == {"secretName": "longhorn-grpc-tls", "optional": True}


def test_the_image_is_the_one_that_is_built_and_of_no_registry() -> None:
    (tag,) = re.findall(r"^tag=(\S+)", (ROOT / "scripts/build-image").read_text(), re.MULTILINE)
    assert CONTAINER["image"] == tag
    assert "/" not in tag


def test_the_selector_and_the_network_policy_find_the_pods() -> None:
    labels = MANIFEST["spec"]["template"]["metadata"]["labels"]
    assert MANIFEST["spec"]["selector"]["matchLabels"] == labels
    (policy,) = re.findall(r"```yaml\n(apiVersion: networking.*?)```", security(), re.DOTALL)
    spec = yaml.safe_load(policy)["spec"]
    assert spec["podSelector"]["matchLabels"] == labels
    assert spec["ingress"][1]["from"][0]["podSelector"]["matchLabels"] == labels
    # A Longhorn manager deletes pods with its own label that differ from its settings.
    assert "longhorn.io/component" not in labels


def security() -> str:
    return (ROOT / "docs" / "security.md").read_text()


def test_the_page_names_every_mount() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| `(/[^`]*)` \|", page, re.MULTILINE)
    assert set(rows) == set(MOUNTS)
