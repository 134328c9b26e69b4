"""A living process is never taken for dead, whatever its environment shows; a dead one is never signalled."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemon import Watch, shell
from tests.support.node import Node, on_node, written
from tests.support.processes import lives

FORGETFUL = {
    "another environment": "exec env -i /bin/sleep 1000",
    "a title over its environment": "exec perl -e '$0 = \"title \" x 1000; sleep 1000'",
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with on_node(tmp_path) as started:
        yield started


@pytest.mark.parametrize("script", FORGETFUL.values(), ids=FORGETFUL)
async def test_a_process_that_lost_its_environment_is_adopted_by_pid_and_start_time(
    node: Node, script: str, tmp_path: Path
) -> None:
    async with node.client() as client, Watch(client) as watch:
        await client.process_create(shell("f", f"echo $$ > {tmp_path}/pid; {script}"))
        await watch.state("f", "running")
        before = (await client.process_get("f")).SerializeToString()
        (pid,) = await written(tmp_path / "pid")
        await node.forgot_its_environment(pid)
    await node.kill()
    await node.restart()
    try:
        async with node.client() as client, Watch(client) as watch:
            assert (await client.process_get("f")).SerializeToString() == before
            await client.process_delete("f")
            await watch.state("f", "deleted")
            assert not lives(pid)
    finally:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)
