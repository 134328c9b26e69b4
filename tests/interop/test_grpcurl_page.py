"""docs/grpcurl.md: its examples do what it says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.test_foreign_clients import grpcurl, run
from tests.support.daemon import Daemon, running_daemon
from tests.support.examples import Example, examples_in

ADDRESS = "localhost:8500"


@pytest.fixture
async def tcp_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as running:
        yield running


async def printed(example: Example, daemon: Daemon) -> str:
    """Run an example against a daemon and return all that it prints."""
    assert ADDRESS in example.command
    command = example.command.replace(ADDRESS, daemon.url.removeprefix("tcp://"))
    _, out, _ = await run("/bin/sh", "-c", f"exec 2>&1; {command}")
    return out


@pytest.mark.timeout(300)
async def test_every_example_does_what_it_says(tcp_daemon: Daemon) -> None:
    grpcurl()
    found = examples_in("grpcurl.md")
    assert len(found) >= 20
    for example in found:
        out = await printed(example, tcp_daemon)
        if "-max-time" in example.command and not example.matches(out):
            out = await printed(example, tcp_daemon)  # a busy machine may need longer than that to connect
        assert example.matches(out), f"$ {example.command}\nprints\n{out}\nand not\n{example.shown}"
