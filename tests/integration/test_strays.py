"""What shows nothing of its origin ends with the instances that have left it, and is left if others have."""

import os
import signal
import time
from pathlib import Path

import pytest

from instance_manager.client import Client
from tests.support.daemon import BIN, Daemon, Watch, port_span, shell
from tests.support.guard import children_of, gone, guarding, reached
from tests.support.patience import patience
from tests.support.processes import lives

STRAY = "(setsid env -i sh -c 'echo $$ >> {0}; sleep 1000' &) ; exec sleep 1000"
"""It shows nothing of where it comes from."""


@pytest.mark.parametrize("adopted", [False, True], ids=["spawned", "adopted"])
@pytest.mark.parametrize("count", [1, 3])
async def test_at_the_end_nothing_is_left_though_it_shows_nothing_of_its_origin(
    tmp_path: Path, count: int, adopted: bool
) -> None:
    url, told = f"unix://{tmp_path}/im.sock", tmp_path / "told"
    first, last = port_span()
    options = ("--listen", url, "--logs-dir", f"{tmp_path}/logs", "--port-range", f"{first}-{last}")

    def strays() -> list[int]:
        return [int(line) for line in told.read_text().split()] if told.exists() else []

    async with guarding(tmp_path / "state", "daemon", *options) as guard:
        daemon = await guard.serving(1)
        async with Client(url) as client:
            for number in range(count):
                await client.process_create(shell(f"r{number}", STRAY.format(told)))
        await reached(lambda: len(strays()) == count)
        if adopted:
            os.kill(daemon, signal.SIGKILL)
            await guard.serving(2)
        begun = time.monotonic()
        assert await guard.stop() == 0
        assert time.monotonic() - begun < patience(15), "it has waited for a grace period of the daemon"
        await gone(strays())


async def test_what_was_there_before_the_daemon_is_nobodys_and_stays(tmp_path: Path) -> None:
    """A script has started something, and has then become the daemon; later, that leaves a child."""
    told = tmp_path / "told"
    leave = f"env -i setsid sh -c 'echo $$ >> {told}; sleep 1000' >/dev/null 2>&1 &"
    before = f"(mkfifo {tmp_path}/go; read go < {tmp_path}/go; {leave}) &"
    daemon = Daemon(tmp_path, "--containment", "session")
    daemon.prefix = ("/bin/sh", "-c", f'{before} exec "$@"', "sh", str(BIN))
    await daemon.start()
    try:
        async with daemon.client() as client, Watch(client) as watch:
            await client.process_create(shell("r", "exec sleep 1000"))
            await watch.state("r", "running")
            (tmp_path / "go").write_text("go")
            await reached(lambda: told.exists() and told.read_text().endswith("\n"))
            stranger = int(told.read_text())
            await reached(lambda: stranger in children_of(daemon.pid))
        assert await daemon.stop() == 0
        line = await daemon.logged(lambda line: line["event"].startswith("cannot tell to which instance"))
        assert line["pid"] == stranger
        assert lives(stranger)
        os.killpg(stranger, signal.SIGKILL)
        await gone([stranger])
    finally:
        left = await daemon.clean_up()
    assert left == []
