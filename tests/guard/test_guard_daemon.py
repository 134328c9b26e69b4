import os
import signal
import socket
from pathlib import Path

import pytest

from instance_manager.client import Client
from instance_manager.platform import contract
from tests.support.daemon import Watch, marked, port_span, sleeper
from tests.support.guard import Arrivals, children_of, guarding, record_name


async def test_processes_outlive_a_killed_daemon_and_their_end_is_on_record(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/im.sock"
    options = (
        "--listen",
        url,
        "--logs-dir",
        f"{tmp_path}/logs",
        "--port-range",
        "{}-{}".format(*port_span()),
    )
    async with guarding(tmp_path / "state", "daemon", *options) as guard:
        first = await guard.serving(1)
        async with Client(url) as client, Watch(client) as watch:
            await client.process_create(sleeper("r1"))
            await watch.state("r1", "running")
        (process,) = children_of(first)
        os.kill(first, signal.SIGKILL)
        second = await guard.serving(2)
        assert sorted(guard.children()) == sorted([second, process])
        assert sorted(marked(guard.marker)) == sorted([guard.pid, second, process])

        os.kill(second, signal.SIGSTOP)  # or it might have taken the record away before it is looked at
        name = record_name(process)
        with Arrivals(guard.exits) as arrivals:
            os.kill(process, signal.SIGKILL)
            await arrivals.until(lambda seen: name in seen)
        assert guard.records() == {name: "signal SIGKILL\n"}
        os.kill(second, signal.SIGCONT)

        assert await guard.stop() == 0
        assert (await guard.logged("daemon ended"))["daemon"] == second


@pytest.mark.parametrize("argument", ["--nonsense", "--port-range=x"])
async def test_a_daemon_that_is_used_wrongly_is_not_started_again(tmp_path: Path, argument: str) -> None:
    async with guarding(tmp_path, "daemon", argument) as guard:
        assert await guard.ended() == 2
        assert (await guard.logged("daemon ended"))["status"] == "code 2"
        assert len(guard.events("daemon started")) == 1


async def test_an_address_in_use_is_tried_again_until_it_is_free(tmp_path: Path) -> None:
    port = port_span()[1] - 30
    options = ("--listen", f"127.0.0.1:{port}", "--logs-dir", f"{tmp_path}/logs", "--metrics-listen", "")
    with socket.create_server(("127.0.0.1", port)) as other:
        async with guarding(tmp_path / "state", "daemon", *options) as guard:
            assert (await guard.logged("daemon died", 2))["status"] == "code 1"
            (told, *_) = [line for line in guard.lines if line["event"] == "cannot start"]
            assert f"127.0.0.1:{port} is in use" in told["reason"]
            other.close()
            await guard.seen(lambda: guard.served or None)
            assert await guard.stop() == 0


async def test_how_much_is_logged_survives_the_daemon_but_not_the_guard(tmp_path: Path) -> None:
    url, state = f"unix://{tmp_path}/im.sock", tmp_path / "state"
    options = ("--listen", url, "--logs-dir", f"{tmp_path}/logs", "--metrics-listen", "")
    async with guarding(state, "daemon", *options) as guard:
        first = await guard.serving(1)
        async with Client(url) as client:
            await client.set_log_level("trace")
            await client.set_log_flags("api,journal")
        os.kill(first, signal.SIGKILL)
        second = await guard.serving(2)
        async with Client(url) as client:
            assert (await client.log_level(), await client.log_flags()) == ("trace", "api,journal")
        (state / contract.LOG_SETTINGS).write_text("loud\n\n")
        os.kill(second, signal.SIGKILL)
        third = await guard.serving(3)
        (told,) = [line for line in guard.lines if line["event"] == "cannot log as much as the daemon before"]
        assert "loud" in told["reason"]
        async with Client(url) as client:
            await client.set_log_level("debug")
        assert await guard.stop() == 0
    async with guarding(state, "daemon", *options) as guard:
        assert await guard.serving(1) != third
        async with Client(url) as client:
            assert (await client.log_level(), await client.log_flags()) == ("info", "")
        assert await guard.stop() == 0
