"""Processes in cells, started as the launcher does it but without the daemon around them."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from instance_manager.app.containment import Cell
from instance_manager.platform.commands import ENTER_CGROUP, INHERITED
from tests.support.processes import lives

LAST = "echo $$; exec sleep 1000"
"""What a process does in the end: it tells its PID, and stays."""
BEHAVIOURS = {
    "stays": (1, LAST),
    "forks": (3, f"sh -c '{LAST}' & sh -c '{LAST}' & {LAST}"),
    "leaves its session": (2, f"setsid sh -c '{LAST}' & {LAST}"),
    "wipes its environment": (2, f"env -i setsid /bin/sh -c '{LAST}' & echo $$; exec env -i sleep 1000"),
    "leaves orphans": (2, f"(env -i setsid /bin/sh -c '{LAST}' &); {LAST}"),
    "has another title": (1, "echo $$; exec perl -e '$0 = q(kworker/0:1) x 50; sleep 1000'"),
    "is stopped": (2, f"setsid sh -c 'echo $$; kill -STOP $$; {LAST}' & {LAST}"),
    "is deaf": (
        2,
        "trap '' INT TERM HUP; setsid sh -c 'echo $$; exec sleep 1000' & echo $$; exec sleep 1000",
    ),
}
"""By what it does: how many processes tell their PIDs, and the script of the leader."""


class Inmate:
    """A leader in a cell, and the processes that it has started."""

    def __init__(self, cell: Cell, script: str, processes: int = 1) -> None:
        """Start a shell script in a cell, and wait until so many processes have told their PIDs."""
        assert cell.entrance is not None
        reading, writing = os.pipe()
        enter = f'{ENTER_CGROUP} || exit 1; exec /bin/sh -c "$0" {INHERITED}>&-'
        words = ("/bin/sh", "-c", enter, script)
        # Nothing that this process has open reaches it but what it is given.
        files = [(os.POSIX_SPAWN_DUP2, cell.entrance, INHERITED), (os.POSIX_SPAWN_DUP2, writing, 1)]
        try:
            self.pid = os.posix_spawn(words[0], words, os.environ, file_actions=files, setsid=True)
        finally:
            os.close(writing)
            cell.close()  # it has a descriptor of its own
        with os.fdopen(reading) as told:
            self.pids = [int(told.readline()) for _ in range(processes)]
        """As each process has told it, so that no cgroup has to be believed."""

    def kill(self, pid: int | None = None) -> None:
        """Kill the leader, and nothing else; a zombie of it stays."""
        os.kill(pid or self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Wait for the leader, which has ended."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def living(self) -> set[int]:
        """Return the PIDs of those that live."""
        return {pid for pid in self.pids if lives(pid)}


def behaving(cell: Cell, behaviour: str) -> Inmate:
    """Start what behaves in a certain way."""
    processes, script = BEHAVIOURS[behaviour]
    return Inmate(cell, script, processes)


def mount_of(folder: Path) -> Path:
    """Return where the file system with a directory is mounted."""
    while not folder.is_mount():
        folder = folder.parent
    return folder


def read_only(folder: Path, program: str, *arguments: str) -> list[str]:
    """Return the command that runs a Python program for which the hierarchy with a cgroup is read-only."""
    remount = f'mount -o remount,bind,ro {mount_of(folder)} && exec "$@"'
    return ["unshare", "-m", "/bin/sh", "-c", remount, "sh", sys.executable, "-m", program, *arguments]
