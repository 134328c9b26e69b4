"""`python -m instance_manager.guard`, and what `instance-manager guard` runs."""

import os
import signal
import sys
from collections.abc import Sequence

from instance_manager.guard import longhorn
from instance_manager.guard.ending import forget_settings
from instance_manager.guard.guard import SIGNALS, Guard
from instance_manager.guard.helpers import Helpers
from instance_manager.guard.log import Log
from instance_manager.guard.options import Options, parse
from instance_manager.guard.records import ExitRecords
from instance_manager.platform import descriptors
from instance_manager.platform.contract import GUARD_STATE_DIR_VARIABLE, GUARD_VARIABLE, STATE_DIR_VARIABLE
from instance_manager.platform.linux import become_subreaper


def main(argv: Sequence[str]) -> None:
    """Run the guard with the arguments after `guard`; does not return.

    Raises:
        SystemExit: with the exit code of the guarded program; 2 if the arguments are wrong, 0 after `--help`.
    """
    descriptors.open_standard()
    options = parse(argv)
    # From here on no signal is lost or kills the guard: they are blocked, and waited for. A signal that was
    # ignored from the start (SIGHUP, by nohup) must stay ignored, so it is not blocked.
    signals = {number for number in SIGNALS if not _ignored_for_good(number)}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would leave nothing to reap
    sys.exit(_guard(argv, options, signals))


def _guard(argv: Sequence[str], options: Options, signals: set[signal.Signals]) -> int:
    log = Log()
    first = os.getpid() == 1  # PID 1 of a container inherits every orphan anyway
    if not first:
        try:
            become_subreaper()
        except OSError as error:
            log.error("cannot adopt orphans", error=str(error))  # noqa: TRY400 - no such log
            return 1
    records = ExitRecords(options.state_dir, log)
    records.open()
    forget_settings(options.state_dir)
    environment = os.environ | {
        GUARD_VARIABLE: str(os.getpid()),
        GUARD_STATE_DIR_VARIABLE: options.state_dir,
        STATE_DIR_VARIABLE: options.state_dir,
    }
    command = [*_own_command(argv), *options.command]
    named = {helper.partition("=")[0] for helper in options.helpers}
    prepared = longhorn.prepare(os.environ, log) if options.prepare == longhorn.NAME else []
    extra = [helper for helper in prepared if helper.partition("=")[0] not in named]
    helpers = Helpers([*extra, *options.helpers], log, signals)
    return Guard(
        command, environment, options, records=records, log=log, helpers=helpers, signals=signals
    ).run()


def _ignored_for_good(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _own_command(argv: Sequence[str]) -> list[str]:
    """Return the command line of this program before the word `guard`, including options of Python."""
    before = sys.orig_argv[: len(sys.orig_argv) - len(argv)]
    if before[-1:] == ["guard"]:
        return [sys.executable, *before[1:-1]]
    return [sys.executable, "-m", "instance_manager"]


if __name__ == "__main__":
    main(sys.argv[1:])
