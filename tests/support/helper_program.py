"""A helper daemon: `helper_program.py FOLDER HABIT...` tells its PID in the file `pid` there, and waits.

Habits: `leave` a child behind that leads a session and does not listen to SIGTERM (its PID is in the file
`left`); be `deaf` to SIGTERM; `fail`; be the `only` one, or fail.
"""

import fcntl
import os
import signal
import sys
from pathlib import Path


def main(folder: Path, *habits: str) -> None:
    if "only" in habits:
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("there is another")
    if "fail" in habits:
        sys.exit(3)
    if "deaf" in habits:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "leave" in habits and os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            tell(folder / "left")
            signal.pause()
        os._exit(0)
    tell(folder / "pid")
    os.write(1, f"helping {' '.join(habits)}\n".encode())
    signal.pause()


def tell(file: Path) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(str(os.getpid()))
    beside.rename(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
