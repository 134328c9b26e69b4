"""Whoever starts a program may have closed any of its standard descriptors."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import grpc.aio
import pytest

from instance_manager.client import Client
from tests.support.daemon import BIN, Watch, shell
from tests.support.patience import patience

CLOSED = [(0,), (1,), (2,), (0, 1, 2)]

QUICKLY = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]


async def start(arguments: Sequence[str], closed: Sequence[int]) -> asyncio.subprocess.Process:
    script = 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in closed)
    return await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", script, "sh", str(BIN), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("closed", CLOSED, ids=str)
@pytest.mark.parametrize(
    "arguments", [["version"], ["doctor"], ["process", "list"], ["orphans", "list"]], ids=str
)
async def test_commands_end_as_always(arguments: list[str], closed: Sequence[int], tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none.sock"
    wanted = await start(["--url", url, *arguments], [])
    expected = await wanted.communicate()
    process = await start(["--url", url, *arguments], closed)
    async with asyncio.timeout(patience(30)):
        said = await process.communicate()
    assert process.returncode == wanted.returncode
    assert b"Traceback" not in b"".join(said)
    for fd, text in ((1, expected[0]), (2, expected[1])):
        assert (said[fd - 1] != b"") == (text != b"" and fd not in closed)


@pytest.mark.parametrize("closed", CLOSED, ids=str)
@pytest.mark.parametrize("guard", [(), ("guard", "--")], ids=["daemon", "guard"])
async def test_a_daemon_serves_logs_and_ends(
    guard: Sequence[str], closed: Sequence[int], tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/im.sock"
    folders = ("--logs-dir", f"{tmp_path}/logs", "--state-dir", f"{tmp_path}/state")
    options = ("--listen", url, *folders, "--metrics-listen", "", "--echo-logs")
    command = (*guard[:1], *(folders[2:] if guard else ()), *guard[1:], "daemon", *options)
    process = await start(command, closed)
    try:
        async with asyncio.timeout(patience(60)), grpc.aio.insecure_channel(url, QUICKLY) as channel:
            await channel.channel_ready()
        async with Client(url) as client, Watch(client) as watch:
            await client.process_create(shell("r1", "ls -l /proc/self/fd; exec sleep 1000"))
            await watch.state("r1", "running")
            text = ""
            async with asyncio.timeout(patience(60)):
                async for line in client.process_log("r1", follow=True):
                    text += line
                    if " 2 -> " in line:
                        break
        assert " 0 -> /dev/null" in text
        assert text.count(f"-> {tmp_path}/logs/r1.log") == 2
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(patience(60)):
            out, err = await process.communicate()
        assert process.returncode == 0
        assert (b"r1" in out) == (1 not in closed)
        assert (b'"serving"' in err) == (2 not in closed)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
