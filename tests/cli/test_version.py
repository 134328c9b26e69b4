"""`instance-manager version` and `instance-manager health`."""

from importlib.metadata import version
from pathlib import Path

from tests.support.cli import ok, run
from tests.support.daemon import Daemon, running_daemon
from tests.support.fake_daemon import fake_daemon

OWN = version("instance-manager")


async def test_both_versions_are_shown(tmp_path: Path) -> None:
    build = {"INSTANCE_MANAGER_GIT_COMMIT": "abc", "INSTANCE_MANAGER_BUILD_DATE": "today"}
    async with running_daemon(tmp_path, environment=build) as daemon:
        shown = (await ok(daemon, "version", "-o", "json")).json
        text = (await ok(daemon, "version", "-o", "text")).out
    assert set(shown) == {"clientVersion", "serverVersion"}
    assert (shown["clientVersion"]["version"], shown["clientVersion"]["gitCommit"]) == (OWN, "")
    assert (shown["serverVersion"]["version"], shown["serverVersion"]["gitCommit"]) == (OWN, "abc")
    assert shown["serverVersion"]["instanceManagerAPIVersion"] >= 1
    client, server = text.splitlines()
    assert client.startswith(f"client: {OWN}, API ")
    assert server.startswith(f"daemon: {OWN}, commit abc, built today, API ")


async def test_without_a_daemon_the_own_version_is_shown_and_the_rest_is_told(tmp_path: Path) -> None:
    nowhere = ("--url", f"unix://{tmp_path}/none", "version")
    as_json = await run(*nowhere)
    assert (as_json.code, as_json.json["serverVersion"]) == (5, None)
    assert as_json.json["clientVersion"]["version"] == OWN
    assert "cannot reach the instance manager" in as_json.error
    as_text = await run(*nowhere, "-o", "text")
    assert (as_text.code, as_text.out.splitlines()[1]) == (5, "daemon: unreachable")
    for flag in ("--client", "--client-only"):
        only = await run(*nowhere, flag)
        assert (only.code, only.err, set(only.json)) == (0, "", {"clientVersion"})


async def test_health_says_serving_and_exits_with_0(daemon: Daemon) -> None:
    assert (await ok(daemon, "health")).out == "SERVING\n"
    assert (await ok(daemon, "health", "--service", "ProcessManagerService")).out == "SERVING\n"
    of_environment = await run("health", env={"INSTANCE_MANAGER_URL": daemon.url})
    assert (of_environment.code, of_environment.out) == (0, "SERVING\n")


async def test_health_of_one_that_does_not_serve_exits_with_1(tmp_path: Path) -> None:
    url = f"unix:{tmp_path}/fake.sock"
    async with fake_daemon(url) as fake:
        fake.health = "NOT_SERVING"
        result = await run("--url", url, "health")
    assert (result.code, result.out, result.err) == (1, "NOT_SERVING\n", "")
