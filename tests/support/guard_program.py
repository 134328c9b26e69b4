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

ASKED = "asked"
"""Where an orphan writes the name of the signal that asked it to end."""


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


def fail(folder: Path, kind: str) -> None:
    """Leave an orphan the first time; then end with the code in the file `code`, never if it is empty."""
    orphan = folder / "orphan"
    if not orphan.exists() and os.fork() == 0:
        if "HELPER" not in os.environ:
            os.setsid()
        os.execv(sys.executable, [sys.executable, __file__, "orphan", str(folder), kind])
    while not orphan.exists():
        pass
    code = (folder / "code").read_text()
    if code:
        os._exit(int(code))
    say("mended")
    signal.pause()


def be_orphan(folder: Path, kind: str) -> None:
    """Tell the PID, and wait; `deaf` to SIGINT, or `obedient`, or the `parent` of a deaf one as well."""

    def end(number: int, _: object) -> None:
        (folder / ASKED).write_text(signal.Signals(number).name)
        os._exit(5)

    signal.signal(signal.SIGINT, signal.SIG_DFL if kind == "plain" else signal.SIG_IGN)
    if kind == "parent" and os.fork() == 0:
        os.setsid()
        signal.pause()
    if kind in {"obedient", "parent"}:
        signal.signal(signal.SIGINT, end)
    beside = folder / "orphan.new"
    beside.write_text(str(os.getpid()))
    beside.rename(folder / "orphan")
    signal.pause()


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


if __name__ == "__main__":
    restarts.FIRST_DELAY = float(os.environ.get("FIRST_DELAY", "0.001"))
    restarts.LONGEST_DELAY = float(os.environ.get("LONGEST_DELAY", restarts.FIRST_DELAY))
    restarts.SLOW_DELAY = float(os.environ.get("SLOW_DELAY", restarts.SLOW_DELAY))
    restarts.STEADY = 60.0  # on a busy machine it may take a second to die
    if sys.argv[1] != "guard":
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    match sys.argv[1:]:
        case ["churn", number]:
            churn(int(number))
        case ["count-signals"]:
            count_signals()
        case ["fail", folder, *kind]:
            fail(Path(folder), *(kind or ["plain"]))
        case ["orphan", folder, kind]:
            be_orphan(Path(folder), kind)
        case _:
            main()
