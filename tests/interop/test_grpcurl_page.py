"""docs/grpcurl.md: its examples do what it says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instance_manager.api.listeners import Offset
from tests.interop.test_foreign_clients import grpcurl, run
from tests.support.daemon import Daemon, running_daemon
from tests.support.engine.process import EngineProcess
from tests.support.examples import Example, examples_in

ADDRESS, PROXY_ADDRESS = "localhost:8500", "localhost:8501"
ENGINE_ADDRESS = "10.42.0.7:10000"


@pytest.fixture
async def tcp_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as running:
        yield running


async def printed(example: Example, daemon: Daemon, engine: EngineProcess) -> str:
    """Run an example against a daemon and an engine, and return all that it prints."""
    assert any(address in example.command for address in (ADDRESS, PROXY_ADDRESS))
    command = example.command
    for shown, used in (
        (ADDRESS, daemon.url.removeprefix("tcp://")),
        (PROXY_ADDRESS, daemon.serving[-1]["addresses"][Offset.PROXY]),
        (ENGINE_ADDRESS, engine.address),
    ):
        command = command.replace(shown, used)
    _, out, _ = await run("/bin/sh", "-c", f"exec 2>&1; {command}")
    return out.replace(engine.address, ENGINE_ADDRESS)


@pytest.mark.timeout(300)
async def test_every_example_does_what_it_says(tcp_daemon: Daemon, engine: EngineProcess) -> None:
    grpcurl()
    found = examples_in("grpcurl.md")
    assert len(found) >= 20
    for example in found:
        out = await printed(example, tcp_daemon, engine)
        if "-max-time" in example.command and not example.matches(out):
            out = await printed(
                example, tcp_daemon, engine
            )  # a busy machine may need longer than that to connect
        assert example.matches(out), f"$ {example.command}\nprints\n{out}\nand not\n{example.shown}"
