"""`doctor` against a real daemon."""

import asyncio
import re
from pathlib import Path

from instance_manager.client import Client
from instance_manager.platform import contract
from tests.support.cells import own_root
from tests.support.certificates import DAY, Authority, fill, today
from tests.support.cli import run
from tests.support.daemon import Daemon, Watch, running_daemon, shell, sleeper
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess


def options(daemon: Daemon) -> list[str]:
    folder = daemon.folder
    return ["doctor", "--state-dir", str(folder / "state"), "--logs-dir", str(folder / "logs")]


async def test_a_node_on_which_nothing_is_wrong_exits_with_0(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
    result = await run("--url", daemon.url, *options(daemon))
    assert result.code == 0, result.out
    told = {finding["check"]: finding["severity"] for finding in result.json}
    assert told["daemon"] == told["journal"] == told["unadopted processes"] == "ok"


async def test_without_a_daemon_it_says_so_and_exits_with_1(daemon: Daemon) -> None:
    result = await run("--url", "unix:///no/such.sock", *options(daemon), "-o", "table")
    assert result.code == 1
    assert result.out.startswith("error    daemon: does not answer")
    assert "→" in result.out


async def test_a_wrong_port_range_is_wrong_usage(tmp_path: Path) -> None:
    result = await run("doctor", "--state-dir", str(tmp_path), "--port-range", "x")
    assert result.code == 2
    assert "10000-20000" in result.err


async def test_it_tells_when_the_certificates_expire(daemon: Daemon, tmp_path: Path) -> None:
    tls = fill(tmp_path / "tls", Authority().signed(not_after=today() + 20 * DAY))
    result = await run("--url", daemon.url, "--tls-dir", str(tls), *options(daemon))
    (finding,) = [each for each in result.json if each["check"] == "certificates"]
    assert finding["severity"] == "warning"
    assert finding["message"].startswith("expire in 19 days")


async def test_it_names_background_work_of_the_daemon_that_fails(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--echo-logs") as daemon:
        assert daemon.process.stdout is not None
        daemon.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        async with daemon.client() as client, Watch(client) as watch:
            await client.process_create(shell("a", "echo line; exec sleep 1000"))
            await watch.state("a", "running")
            await daemon.logged(lambda line: line["event"] == "background work failed")
        result = await run("--url", daemon.url, *options(daemon))
    (finding,) = [each for each in result.json if each["check"] == "background work"]
    assert (finding["severity"], finding["message"]) == ("error", "log-echo of the daemon fails")


async def test_it_knows_all_background_work_by_name(daemon: Daemon) -> None:
    _, page = await daemon.http("/metrics")
    told = set(re.findall(r'background_up\{work="(.*)"\}', page))
    assert told | {"certificates", "spdk-watch"} == set(contract.BACKGROUND_WORKS)


async def test_it_finds_that_the_service_of_v2_is_missing_or_there(tmp_path: Path, spdk: SpdkProcess) -> None:
    where = ("--spdk-enabled", "--spdk-service-address", spdk.address)
    await spdk.kill()
    async with running_daemon(tmp_path, *where) as daemon, daemon.client() as client:
        assert await client.health("spdk") == "NOT_SERVING"
        assert await client.health() == "SERVING"
        result = await run("--url", daemon.url, *options(daemon))
        (finding,) = [each for each in result.json if each["check"] == "SPDK service"]
        assert (result.code, finding["severity"]) == (1, "error")
        assert "port 8504" in finding["hint"]
        await spdk.start()
        await reported(client, "SERVING")
        result = await run("--url", daemon.url, *options(daemon))
        (finding,) = [each for each in result.json if each["check"] == "SPDK service"]
        assert (result.code, finding["severity"]) == (0, "ok")
        await spdk.kill()
        await reported(client, "NOT_SERVING")


async def test_without_v2_nothing_is_said_of_its_service(daemon: Daemon) -> None:
    result = await run("--url", daemon.url, *options(daemon))
    assert not [each for each in result.json if each["check"] == "SPDK service"]


async def reported(client: Client, status: str) -> None:
    """Wait until this is reported of the SPDK service."""
    async with asyncio.timeout(patience(30.0)):
        while await client.health("spdk") != status:
            pass


async def test_it_shows_the_cgroups_of_other_state_directories(tmp_path: Path) -> None:
    with own_root() as root:
        given = ("--containment", "cgroup", "--cgroup-root", str(root))
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with (
            running_daemon(tmp_path / "a", *given) as one,
            running_daemon(tmp_path / "b", *given) as other,
        ):
            async with other.client() as client, Watch(client) as watch:
                await client.process_create(sleeper("r1"))
                uuid = (await watch.state("r1", "running")).status.uuid
            result = await run("--url", one.url, *options(one))
            assert result.code == 0, result.out
            told = {finding["check"]: finding for finding in result.json}
            assert told["containment"]["message"].startswith(f"each instance has a cgroup in {root}/")
            assert f"/{uuid} (1 process)" in told["other cgroups"]["message"]
