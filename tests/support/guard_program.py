"""The installed program with another back-off, and programs to guard that the stub cannot play.

The guard starts what it guards by the command line that it was started with itself, so with
`python program.py guard -- churn 100` it guards `python program.py churn 100`.
"""

import os
import signal
import sys
from pathlib import Path

from instance_manager.cli import main
from instance_manager.guard import restarts


def churn(number: int) -> None:
    """Start orphans that end at once with 0, 1, 2 ... 255, 0 ... as exit code; then wait."""
    for index in range(number):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(index % 256)
            os._exit(0)
        os.waitpid(child, 0)
    say("churned")
    signal.pause()


def count_signals() -> None:
    """Tell every signal; end with SIGQUIT."""
    wanted = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    say("counting")
    number = 0
    while number != signal.SIGQUIT:
        number = signal.sigwait(wanted)
        say(signal.Signals(number).name)


def fail(folder: Path) -> None:
    """Leave an orphan the first time; then end with the code in the file `code`, never if it is empty."""
    orphan = folder / "orphan"
    if not orphan.exists() and os.fork() == 0:
        if "HELPER" not in os.environ:
            os.setsid()
        beside = folder / "orphan.new"
        beside.write_text(str(os.getpid()))
        beside.rename(orphan)
        signal.pause()
    while not orphan.exists():
        pass
    code = (folder / "code").read_text()
    if code:
        os._exit(int(code))
    say("mended")
    signal.pause()


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


if __name__ == "__main__":
    restarts.FIRST_DELAY = float(os.environ.get("FIRST_DELAY", "0.001"))
    restarts.LONGEST_DELAY = float(os.environ.get("LONGEST_DELAY", restarts.FIRST_DELAY))
    restarts.SLOW_DELAY = float(os.environ.get("SLOW_DELAY", restarts.SLOW_DELAY))
    restarts.STEADY = 60.0  # on a busy machine it may take a second to die
    match sys.argv[1:]:
        case ["churn", number]:
            churn(int(number))
        case ["count-signals"]:
            count_signals()
        case ["fail", folder]:
            fail(Path(folder))
        case _:
            main()
