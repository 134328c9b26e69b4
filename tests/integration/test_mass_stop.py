"""SIGTERM with many instances that are adopted, or not: all end in time, with all they have started."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Watch, shell
from tests.support.node import Node
from tests.support.patience import patience
from tests.support.processes import waited_for_processor

GRACE = 2
SCRIPT = "trap '' INT; (trap '' INT; setsid sleep 1000 &); sleep 1000 & while :; do sleep 1000; done"
LONGEST_SILENCE = 1
"""Seconds that the event loop may stand still."""


async def longest_silence(daemon: Daemon) -> float:
    """Ask over HTTP, which the event loop answers itself, until nothing listens; return the longest wait.

    Waiting for a processor, which others had, does not count.
    """
    longest = 0.0
    while True:
        begun, waited = time.monotonic(), waited_for_processor(daemon.pid)
        try:
            await daemon.http("/healthz")
        except (OSError, asyncio.IncompleteReadError):
            return longest
        # Of a daemon that has just ended it is not known any more.
        waited = max(0.0, waited_for_processor(daemon.pid) - waited)
        longest = max(longest, time.monotonic() - begun - waited)
        await asyncio.sleep(0.005)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("adopted", [False, True], ids=["spawned", "adopted"])
async def test_sigterm_ends_many_instances_whose_children_ignore_sigint(
    tmp_path: Path, sized: Callable[[int, int], int], adopted: bool
) -> None:
    count = sized(60, 500)
    node = Node(tmp_path, "--shutdown-grace", str(GRACE))
    await node.daemon.start()
    try:
        async with node.client() as client, Watch(client) as watch:
            for begin in range(0, count, 20):
                names = [f"p{number}" for number in range(begin, min(begin + 20, count))]
                await asyncio.gather(*(client.process_create(shell(name, SCRIPT)) for name in names))
            await watch.until(lambda seen: sum(c.status.state == "running" for c in seen) >= count, 60)
        if adopted:
            await node.kill()
            await node.restart("--shutdown-grace", str(GRACE))
        await node.daemon.http("/healthz")
        begun = time.monotonic()
        heartbeat = asyncio.create_task(longest_silence(node.daemon))
        assert await node.daemon.stop(within=60) == 0
        assert time.monotonic() - begun < patience(GRACE + 5)
        assert await heartbeat < patience(LONGEST_SILENCE)
    finally:
        left = await node.daemon.clean_up()
    assert left == []
