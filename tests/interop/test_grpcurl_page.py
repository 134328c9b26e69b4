"""docs/grpcurl.md: its examples do what it says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instance_manager.api.listeners import Offset
from tests.interop.test_foreign_clients import grpcurl, run
from tests.support.daemon import Daemon, running_daemon
from tests.support.engine.process import EngineProcess
from tests.support.examples import Example, examples_in
from tests.support.spdk.process import SpdkProcess

ADDRESS, PROXY_ADDRESS, DISK_ADDRESS = "localhost:8500", "localhost:8501", "localhost:8502"
V2_DISK_ADDRESS = "localhost:8602"
ENGINE_ADDRESS = "10.42.0.7:10000"


@pytest.fixture
async def tcp_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as running:
        yield running


@pytest.fixture
async def places(
    tcp_daemon: Daemon, tmp_path: Path, engine: EngineProcess, spdk: SpdkProcess
) -> AsyncIterator[dict[str, str]]:
    """The addresses of the page, and where that is: two daemons, of which one serves v2, and an engine."""
    options = ("--listen", "127.0.0.1:0", "--spdk-enabled", "--spdk-service-address", spdk.address)
    (tmp_path / "v2").mkdir()
    async with running_daemon(tmp_path / "v2", *options) as v2:
        first, second = (each.serving[-1]["addresses"] for each in (tcp_daemon, v2))
        yield {
            ADDRESS: first[Offset.PROCESS],
            PROXY_ADDRESS: first[Offset.PROXY],
            DISK_ADDRESS: first[Offset.DISK],
            V2_DISK_ADDRESS: second[Offset.DISK],
            ENGINE_ADDRESS: engine.address,
        }


async def printed(example: Example, places: dict[str, str]) -> str:
    """Run an example and return all that it prints."""
    assert any(address in example.command for address in places)
    command = example.command
    for shown, used in places.items():
        command = command.replace(shown, used)
    _, out, _ = await run("/bin/sh", "-c", f"exec 2>&1; {command}")
    return out.replace(places[ENGINE_ADDRESS], ENGINE_ADDRESS)


@pytest.mark.timeout(300)
async def test_every_example_does_what_it_says(places: dict[str, str]) -> None:
    grpcurl()
    found = examples_in("grpcurl.md")
    assert len(found) >= 20
    for example in found:
        out = await printed(example, places)
        if "-max-time" in example.command and not example.matches(out):
            out = await printed(example, places)  # a busy machine may need longer than that to connect
        assert example.matches(out), f"$ {example.command}\nprints\n{out}\nand not\n{example.shown}"
