"""A machine with control groups of version 2 and systemd, and tests that run inside.

scripts/vm test [OPTION OF PYTEST]...   run tests in it, tests/vm unless others are named
scripts/vm start                        boot one that `test` and `run` use until it is stopped
scripts/vm run [-t SECONDS] COMMAND     run a command of the shell in it, 120 seconds at most
scripts/vm put FILE PATH                write a file into it
scripts/vm stop                         end it; what it has written to its disk is gone

Its disk is made by the first start and kept in ~/.cache ($XDG_CACHE_HOME), which needs root.
"""

import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.patience import FACTOR, VARIABLE
from tests.support.vm import checkout, disk
from tests.support.vm.machine import Machine, MachineError

STARTED = disk.ROOT / ".vm"
"""Of the machine that `start` has started."""
_SLOWER = 8
"""So many times as long takes everything in a machine in software."""
_TO_TEST = 3600.0
"""Seconds until tests that hang are killed; each of them has a limit of its own."""


@contextlib.contextmanager
def machine_to_use() -> Iterator[Machine]:
    """Return the machine that was started, or else one that ends with the block."""
    machine = Machine(STARTED)
    if machine.running:
        yield machine
        return
    with tempfile.TemporaryDirectory(prefix="instance-manager-vm.") as folder:
        machine = Machine(Path(folder))
        machine.start(disk.cached())
        try:
            yield machine
        finally:
            machine.stop()


def show(text: str) -> None:
    """Print what a command in the machine has written."""
    sys.stdout.write(text)
    sys.stdout.flush()


def test(options: list[str]) -> int:
    """Run pytest in the machine and return its exit status."""
    color = ["--color=yes"] if sys.stdout.isatty() else []
    named = any((disk.ROOT / option.partition("::")[0]).exists() for option in options)
    pytest = shlex.join([*color, *options, *([] if named else ["tests/vm"])])
    with machine_to_use() as machine:
        checkout.install(machine)
        return machine.run(
            f"""cd {checkout.FOLDER}; PATH={disk.VENV}/bin:$PATH
export {VARIABLE}={FACTOR * _SLOWER:g} INSTANCE_MANAGER_TEST_MACHINE=1 INSTANCE_MANAGER_TEST_NO_SKIP=1
exec python -m pytest {pytest}""",
            seconds=_TO_TEST,
            output=show,
        )


def started() -> Machine:
    """Return the machine that was started.

    Raises:
        MachineError: There is none.
    """
    machine = Machine(STARTED)
    if not machine.running:
        raise MachineError("no machine runs: scripts/vm start")
    return machine


def main(arguments: list[str]) -> int:
    """Do what the command line says and return the exit status."""
    match arguments:
        case ["test", *options]:
            return test(options)
        case ["start"]:
            machine = Machine(STARTED)
            if not machine.running:
                machine.start(disk.cached(), apart=True)
        case ["run", "-t", seconds, command]:
            return started().run(command, seconds=float(seconds), output=show)
        case ["run", command]:
            return started().run(command, seconds=120, output=show)
        case ["put", local, remote]:
            started().put(Path(local).read_bytes(), remote)
        case ["stop"]:
            Machine(STARTED).stop()
        case _:
            sys.stderr.write(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    # Whoever ends this program ends its machine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except MachineError as error:
        sys.exit(f"vm: {error}")
