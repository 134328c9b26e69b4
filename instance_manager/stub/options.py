"""The stub's command line: one parser, of the standard library because it starts faster than click.

The defaults make a well-behaved instance; each option adds one way of misbehaving. They combine freely.
"""

import argparse
import math
import signal
from collections.abc import Sequence

FATAL = (
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGKILL",
    "SIGQUIT",
    "SIGSEGV",
    "SIGTERM",
)
"""The signals `--crash-signal` takes: their default action is to end the process."""

NUMBER_BYTES = 12
"""Digits of the running number at the start of each line of `--log-rate`."""


class Options(argparse.Namespace):
    """The options of a stub; durations in seconds, None for "never"."""

    kind: str
    listen: str
    ready_after: float
    never_ready: bool
    not_serving: bool
    exit: int | None
    exit_after: float | None
    crash_after: float | None
    crash_signal: str
    ignore: list[signal.Signals]
    stop_after: float
    stop_exit: int
    helpers: int
    log_rate: float
    log_line_bytes: int
    log_lines: int


class _Formatter(argparse.HelpFormatter):
    """Help of a fixed width: asking for the terminal's would import shutil at every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def parse(argv: Sequence[str]) -> Options:
    """Read the arguments after `stub`.

    Raises:
        SystemExit: They are wrong (2, with the usage on stderr), or ask for help (0).
    """
    return _parser().parse_args(argv, namespace=Options())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="instance-manager stub",
        description="Stand in for an engine or a replica: serve gRPC health, and misbehave as options say. "
        "SIGINT, SIGTERM and SIGHUP end it at once with exit code 0.",
        epilog="The name in the log comes from INSTANCE_MANAGER_NAME. Durations are in seconds, as 0.25.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=("engine", "replica"), help="what it says it is")
    _add_serving(parser)
    _add_ending(parser)
    _add_logging(parser)
    return parser


def _add_serving(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--listen",
        required=True,
        metavar="HOST:PORT",
        help="where to serve, as 0.0.0.0:10000, localhost:10000 or [::1]:10000; "
        "port 0 takes a free one and logs it",
    )
    group.add_argument(
        "--ready-after",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="do not listen before (default: listen at once)",
    )
    group.add_argument("--never-ready", action="store_true", help="run without ever listening")
    group.add_argument("--not-serving", action="store_true", help="answer health checks with NOT_SERVING")


def _add_ending(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ending")
    add = group.add_argument
    add("--exit", type=_exit_code, metavar="CODE", help="exit by itself with this code, 0 to 255, at once")
    add("--exit-after", type=_seconds, metavar="SECONDS", help="exit by itself after this time (--exit or 0)")
    add("--crash-after", type=_seconds, metavar="SECONDS", help="die of --crash-signal after this time")
    add(
        "--crash-signal",
        choices=FATAL,
        default="SIGSEGV",
        metavar="NAME",
        help=f"%(default)s if not given; one of {', '.join(FATAL)}",
    )
    add(
        "--ignore",
        type=_ignorable,
        action="append",
        default=[],
        metavar="SIGNAL",
        help="ignore this signal, as SIGINT; may be repeated",
    )
    add(
        "--stop-after",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="take this long to end after the first signal, serving meanwhile (default: end at once)",
    )
    add(
        "--stop-exit",
        type=_exit_code,
        default=0,
        metavar="CODE",
        help="exit code after a signal, 0 to 255 (default: %(default)s)",
    )
    add(
        "--helpers",
        type=_count,
        default=0,
        metavar="N",
        help="first start N orphans, each in its own session, deaf to SIGINT, SIGTERM and SIGHUP, "
        "holding stdout open for ever; logs 'helper pid=PID' for each",
    )


def _add_logging(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("logging")
    group.add_argument(
        "--log-rate",
        type=_rate,
        default=0.0,
        metavar="LINES",
        help="log this many numbered lines a second, 'max' as fast as stdout takes them (default: 0)",
    )
    group.add_argument(
        "--log-line-bytes",
        type=_line_bytes,
        default=100,
        metavar="BYTES",
        help=f"length of a numbered line without newline, at least {NUMBER_BYTES} (default: %(default)s)",
    )
    group.add_argument(
        "--log-lines",
        type=_count,
        default=0,
        metavar="N",
        help="stop after N numbered lines, 0 for never (default: %(default)s)",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no duration in seconds")
    return value


def _rate(text: str) -> float:
    if text == "max":
        return math.inf
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no rate: lines per second, or max")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _line_bytes(text: str) -> int:
    value = int(text)
    if value < NUMBER_BYTES:
        raise argparse.ArgumentTypeError(f"{text} is less than the {NUMBER_BYTES} bytes of the line's number")
    return value


def _exit_code(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 255:  # noqa: PLR2004 - what wait(2) can report
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 255")
    return value


def _ignorable(text: str) -> signal.Signals:
    value = signal.Signals.__members__.get(text)
    if value is None or value in {signal.SIGKILL, signal.SIGSTOP}:
        raise argparse.ArgumentTypeError(f"{text} is no signal that can be ignored")
    return value
