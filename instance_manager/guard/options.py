"""The guard's command line, by argparse, which takes a fifth of the memory and time of click."""

import argparse
import math
import os
import sys
from collections.abc import Sequence

from instance_manager.guard import longhorn
from instance_manager.guard.helpers import parse as parse_helper
from instance_manager.guard.log import Log
from instance_manager.platform import contract

PROGRAMS = ("instance-manager", "longhorn-instance-manager")
"""Names of this program, with which the command may begin, also as a path: Longhorn's pods have them in their
arguments."""
EXAMPLE = "instance-manager guard -- daemon --listen localhost:8500"


class Options(argparse.Namespace):
    """The options of the guard."""

    state_dir: str
    restarts: int
    within: float
    """Minutes."""
    prepare: str
    """What to prepare before the start, `longhorn` or nothing."""
    helpers: list[str]
    """Each as NAME=COMMAND."""
    command: list[str]
    """Arguments of this program, global options first."""

    @property
    def name(self) -> str:
        """The command's name, to be shown."""
        return next((word for word in self.command if not word.startswith("-")), "")


class _Formatter(argparse.HelpFormatter):
    """Help with a fixed width: asking the terminal would import shutil at every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """Tell what is wrong in one line, as JSON where the guard's log is, and exit with 2.

        It does not return; the type that says so would cost half a MiB.
        """
        if os.isatty(2):
            self.exit(2, f"{self.prog}: error: {message}\n")
        Log().error("cannot start", reason=message, exit_code=2)
        sys.exit(2)


def parse(argv: Sequence[str]) -> Options:
    """Read the arguments after `guard`.

    Raises:
        SystemExit: if they are wrong (2, with a line on stderr), or ask for help (0).
    """
    split = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    options, unknown = parser.parse_known_args(argv[:split], namespace=Options())
    if unknown:
        parser.error(f"unknown argument {unknown[0]}; the command to guard stands after --, as in {EXAMPLE}")
    options.helpers = options.helpers or _lines(_from_environment("HELPERS", ""))
    if reason := _why_wrong(options.helpers):
        parser.error(f"argument --helper: {reason}")
    options.command = list(argv[split + 1 :])
    if options.command[:1] and options.command[0].rpartition("/")[2] in PROGRAMS:
        del options.command[0]
    if not options.command:
        parser.error(f"there is no command to guard; it stands after --, as in {EXAMPLE}")
    options.state_dir = os.path.abspath(options.state_dir)  # noqa: PTH100 - pathlib costs a MiB
    return options


def _parser() -> argparse.ArgumentParser:
    folder = os.environ.get(contract.STATE_DIR_VARIABLE, contract.STATE_DIR)
    parser = _Parser(
        prog="instance-manager guard",
        usage="instance-manager guard [OPTIONS] -- COMMAND [ARGUMENTS]",
        description="Run COMMAND of instance-manager, usually `daemon`, and restart it when it dies. The "
        "processes it has started keep running in between as children of the guard, which records their exit "
        "status for the next daemon. Meant to be PID 1 of a container.",
        epilog="Exit code: that of the command, or 128 plus the number of the signal that killed it. The "
        "guard ends after SIGTERM, SIGINT or SIGQUIT to it; and, while no instance lives, when the command "
        "exits with 0 or 2 or when all restarts are used up. Each option has an environment variable, such "
        "as INSTANCE_MANAGER_GUARD_STATE_DIR.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--state-dir",
        type=_folder,
        default=_from_environment("STATE_DIR", folder),
        metavar="DIR",
        help="directory of the exit statuses (in exits/), and the default of the daemon's --state-dir "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--restarts",
        type=_count,
        default=_from_environment("RESTARTS", "100"),
        metavar="N",
        help="give up when it dies after N restarts; while instances live, keep trying every 30 seconds "
        "instead (default: %(default)s)",
    )
    parser.add_argument(
        "--within",
        type=_minutes,
        default=_from_environment("WITHIN", "5"),
        metavar="MINUTES",
        help="only restarts within the last MINUTES count for --restarts (default: %(default)s)",
    )
    parser.add_argument(
        "--prepare",
        type=_preparation,
        default=_from_environment("PREPARE", ""),
        metavar="longhorn",
        help="before the start, do what pods of a Longhorn manager need: bind /host/dev, /host/sys and "
        "/host/lib/modules to /dev, /sys and /lib/modules, and have tgtd as a helper if it is installed; "
        "nothing with DATA_ENGINE=v2 (default: nothing)",
    )
    parser.add_argument(
        "--helper",
        dest="helpers",
        action="append",
        metavar="NAME=COMMAND",
        help="start this daemon before the command, and again whenever it ends; may be given several times "
        "(INSTANCE_MANAGER_GUARD_HELPERS: one in a line)",
    )
    return parser


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _why_wrong(helpers: list[str]) -> str:
    """Return what is wrong with the helpers; empty if nothing is."""
    names = set()
    for helper in helpers:
        try:
            name, _ = parse_helper(helper)
        except ValueError as error:
            return str(error)
        if name in names:
            return f"there are two of the name {name}"
        names.add(name)
    return ""


def _from_environment(name: str, default: str) -> str:
    """Return the default of an option; as it is a string, argparse checks it like an argument."""
    return os.environ.get(f"{contract.GUARD_VARIABLE}_{name}", default)


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _preparation(text: str) -> str:
    if text not in {"", longhorn.NAME}:
        raise argparse.ArgumentTypeError(f"{text!r} is not {longhorn.NAME}")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return value
