"""A file system of the logs that never answers keeps nobody from ending the daemon."""

import os
import sys
from pathlib import Path

from tests.support.daemon import Daemon, Watch, shell
from tests.support.processes import eventually

PROGRAM = """
import os, sys
from instance_manager.adapters.logs import probe, trimmer

def hang(*_):
    os.close(os.open(os.environ["HANGING"] + "/asked", os.O_WRONLY | os.O_CREAT))
    os.open(os.environ["HANGING"] + "/pipe", os.O_WRONLY)  # nobody ever reads it

probe._INTERVAL, probe._LATE = 0.05, 0.1
probe._reason_not_to_write = trimmer.drop_head = hang
from instance_manager.cli import main
main()
"""
"""The daemon, with a file system that hangs in what is done in threads."""


async def test_sigterm_ends_the_daemon_in_time_while_its_threads_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    daemon = Daemon(
        tmp_path,
        *("--log-max-size", "1", "--echo-logs", "--shutdown-grace", "1"),
        environment={"HANGING": str(tmp_path)},
    )
    daemon.prefix = (sys.executable, "-c", PROGRAM)
    try:
        await daemon.start()
        async with daemon.client() as client, Watch(client) as watch:
            script = "head -c 2000000 /dev/zero | tr '\\0' x | fold -w 99; exec sleep 1000"
            await client.process_create(shell("r", script))
            await watch.state("r", "running")
            await eventually((tmp_path / "asked").exists)
            await daemon.logged(lambda line: "has not answered" in str(line.get("reason")))
        assert await daemon.stop(within=30) == 0
    finally:
        if daemon.process.returncode is None:
            daemon.process.kill()
        left = await daemon.clean_up()
    assert left == []
