"""The daemon as a program: addresses, signals, and errors a person can cause."""

import asyncio
import contextlib
import fcntl
import functools
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from tests.support.daemon import BIN, Daemon, Watch, port_span, refusal, running_daemon, shell, sleeper
from tests.support.patience import patience

SIX_PINGS = 65
"""Seconds."""


async def refused(*options: str) -> tuple[int, str]:
    """Start a daemon that must not start; return its exit status and why it did not."""
    with tempfile.TemporaryDirectory() as folder:
        return await _refused("--state-dir", f"{folder}/state", "--logs-dir", f"{folder}/logs", *options)


async def _refused(*options: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(BIN), "daemon", *options), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(patience(20)):
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, refusal(err.decode())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--listen", "localhost:65533"], "write a port up to 65532"),
        (["--listen", "unix://"], "unix://PATH"),
        (["--port-range", "9-1"], "FIRST <= LAST"),
        (["--port-range", "x"], "10000-20000"),
        (["--stop-timeout", "-1"], "--stop-timeout"),
        (["--binary-root", "/no/such/place"], "cannot use the binary root /no/such/place"),
        (["--max-processes", "0"], "--max-processes"),
        (["--max-streams", "0"], "--max-streams"),
        (["--instance-memory-max", "0"], "no instance could run with 0: give at least 1Mi"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
async def test_a_wrong_flag_is_one_clear_line_and_exit_code_2(options: list[str], said: str) -> None:
    status, reason = await refused(*options)
    assert status == 2
    assert said in reason


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
async def test_an_address_in_use_is_one_clear_line_and_exit_code_1(offset: int) -> None:
    port = port_span()[1] - 10
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port + offset))
        taken.listen()
        status, reason = await refused("--listen", f"127.0.0.1:{port}")
    assert status == 1
    assert f"127.0.0.1:{port + offset}" in reason
    assert "in use" in reason


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["localhost", "[::]", ""])
@pytest.mark.parametrize("offset", [0, 1, 2, 3])
async def test_half_of_a_host_in_use_refuses_the_start(
    tmp_path: Path, offset: int, host: str, taken: str
) -> None:
    port = port_span()[1] - 10
    with socket.create_server(
        (taken, port + offset), family=socket.AF_INET6 if ":" in taken else socket.AF_INET
    ):
        state = ("--state-dir", str(tmp_path), "--logs-dir", str(tmp_path))
        status, reason = await refused("--listen", f"{host}:{port}", "--insecure", *state)
    assert status == 1
    assert f":{port + offset} is in use by another program; " in reason


async def test_localhost_is_served_on_both_loopbacks_on_each_port(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "localhost:0") as daemon:
        for address in daemon.serving[-1]["addresses"]:
            port = address.rpartition(":")[2]
            for host in ("127.0.0.1", "[::1]"):
                async with Client(f"tcp://{host}:{port}") as client:
                    assert await client.health() == "SERVING"


async def test_a_unix_socket_on_which_another_daemon_answers_is_not_taken(daemon: Daemon) -> None:
    status, reason = await refused("--listen", daemon.url)
    assert status == 2
    assert "another process answers" in reason
    async with daemon.client() as client:
        assert await client.health() == "SERVING"


async def test_two_daemons_never_share_a_port(tmp_path: Path) -> None:
    port = port_span()[1] - 20
    async with running_daemon(tmp_path, "--listen", f"127.0.0.1:{port}"):
        status, _ = await refused("--listen", f"127.0.0.1:{port}")
        assert status == 1


async def test_health_says_not_serving_and_creates_are_refused_while_the_daemon_ends(tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, "--shutdown-grace", "30") as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await client.process_create(
            shell("slow", "trap 'echo asked' INT; echo up; while :; do sleep 0.1; done")
        )
        lines = aiter(client.process_log("slow", follow=True))
        assert await anext(lines) == "up"
        daemon.process.send_signal(signal.SIGTERM)
        await watch.state("slow", "stopping")
        for service in ("", "ProcessManagerService"):
            assert await client.health(service) == "NOT_SERVING"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_create(sleeper("late"))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        # A second signal does not wait for the grace period.
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended(within=15) == 0


async def test_a_binary_that_cannot_be_executed_answers_ok_with_the_reason(
    daemon: Daemon, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("not a program")
    async with daemon.client() as client:
        for number, (binary, number_of_error) in enumerate([("/no/such", 2), ("/tmp", 13), (str(text), 13)]):
            spec = sleeper(f"p{number}")
            spec.binary = binary
            created = await client.process_create(spec)
            assert created.status.state == "error"
            assert os.strerror(number_of_error) in created.status.error_msg


async def test_a_process_sees_its_name_and_uuid_and_nothing_of_the_daemon(daemon: Daemon) -> None:
    script = "env; ls -l /proc/self/fd | awk '{print \"fd\", $9, $11}'; cut -d' ' -f6 /proc/self/stat"
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(shell("a", script))
        await watch.state("a", "stopped")
        lines = [line async for line in client.process_log("a")]
    assert "INSTANCE_MANAGER_NAME=a" in lines
    assert f"INSTANCE_MANAGER_UUID={created.status.uuid}" in lines
    targets = {line.split()[2] for line in lines if line.startswith("fd ") and len(line.split()) > 2}
    log = str(daemon.logs / "a.log")
    assert {"/dev/null", log} <= targets
    assert not any("socket" in target or "anon_inode" in target for target in targets)


async def test_the_read_only_condition_is_told_for_engines_only(daemon: Daemon) -> None:
    async with daemon.client() as client:
        engine = await client.process_create(sleeper("vol-e-0"))
        replica = await client.process_create(sleeper("vol-r-1"))
        assert dict(engine.status.conditions) == {"FilesystemReadOnly": False}
        assert dict(replica.status.conditions) == {}


async def test_a_large_request_is_refused_and_the_daemon_goes_on(daemon: Daemon) -> None:
    async with daemon.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.process_create(sleeper("a" * (5 << 20)))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await client.health() == "SERVING"


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_a_client_may_ping_every_10_s_without_a_stream(tmp_path: Path) -> None:
    options = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1)]
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        target = daemon.url.removeprefix("tcp://")
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            await channel.channel_ready()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(
                    channel.wait_for_state_change(grpc.ChannelConnectivity.READY), SIX_PINGS
                )


def shows_signal(name: str, line: dict[str, Any]) -> bool:
    return line.get("signal") == name


async def test_signals_that_people_send_to_other_daemons_do_not_end_this_one(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        for name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
            os.kill(daemon.pid, signal.Signals[name])
            await daemon.logged(functools.partial(shows_signal, name))
        assert await client.health() == "SERVING"
        os.kill(daemon.pid, signal.SIGQUIT)
        await watch.state("a", "deleted")
    assert await daemon.ended() == 0


@pytest.mark.parametrize("reader", ["gone", "stuck"])
async def test_a_daemon_whose_log_nobody_reads_goes_on_and_ends_when_it_is_told_to(
    tmp_path: Path, reader: str
) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    url = f"unix://{tmp_path}/im.sock"
    process = await asyncio.create_subprocess_exec(
        *(str(BIN), "daemon", "--listen", url, "--state-dir", str(tmp_path / "state")),
        *("--logs-dir", str(tmp_path / "logs"), "--stop-timeout", "2"),
        stderr=writing,
    )
    os.close(writing)
    try:
        async with Client(url) as client, asyncio.timeout(patience(40)):
            told = b""
            while b'"serving"' not in told:
                told += await asyncio.to_thread(os.read, reading, 4096)
            if reader == "gone":
                os.close(reading)
            async with Watch(client) as watch:
                for number in range(30):
                    await client.process_create(sleeper(f"p{number}"))
                await watch.until(lambda seen: sum(c.status.state == "running" for c in seen) == 30)
            process.terminate()
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if reader == "stuck":
            os.close(reading)
