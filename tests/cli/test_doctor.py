"""`doctor` against a real daemon."""

import re
from pathlib import Path

from instance_manager.platform import contract
from tests.support.certificates import DAY, Authority, fill, today
from tests.support.cli import run
from tests.support.daemon import Daemon, Watch, running_daemon, shell, sleeper


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
