"""The daemon's own log: JSON in a container, coloured text on a terminal, always on stderr.

How much is logged can be changed while the daemon runs: the level for everything, and areas that log in
detail whatever the level.
"""

import logging
import os
import select
import stat
import sys
from collections.abc import Collection
from typing import Any

import structlog

from instance_manager.core.errors import InvalidArgumentError

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
"""Names of levels as clients write them, in lower case."""
AREAS = ("api", "journal", "logs", "mounts", "process", "readiness", "spdk", "supervisor", "recovery")
"""Parts of the daemon that can log in detail by themselves: the last names of its modules and packages."""
_ALWAYS = "audit"
"""The part that logs whatever the level: nobody who may set it shall hide by it what they change."""


class LogControl:
    """How much is logged. There is one log, so there is one of these: `control`."""

    def __init__(self) -> None:
        self._level = "info"
        self._areas: frozenset[str] = frozenset()

    @property
    def level(self) -> str:
        """Name of the level, in lower case."""
        return self._level

    @property
    def flags(self) -> str:
        """The areas that log in detail, separated by commas."""
        return ",".join(sorted(self._areas))

    def set_level(self, name: str) -> None:
        """Log what is at least so important.

        Raises:
            InvalidArgumentError: if there is no such level.
        """
        if name.lower() not in LEVELS:
            raise InvalidArgumentError(f"cannot use the log level {name!r}: it is one of {', '.join(LEVELS)}")
        self._level = name.lower()

    def set_flags(self, text: str) -> None:
        """Let these areas, separated by commas, log in detail whatever the level; none if empty.

        Raises:
            InvalidArgumentError: if there is no such area.
        """
        areas = {word.strip() for word in text.split(",")} - {""}
        if unknown := sorted(areas - set(AREAS)):
            raise InvalidArgumentError(
                f"cannot let {', '.join(unknown)} log in detail: there are {', '.join(AREAS)}"
            )
        self._areas = frozenset(areas)

    def passes(self, level: str, path: Collection[str]) -> bool:
        """Tell whether a line is to be logged: its level and the dotted name of the module, in parts."""
        important = LEVELS.get(level, logging.INFO) >= LEVELS[self._level]
        return important or _ALWAYS in path or not self._areas.isdisjoint(path)


control = LogControl()


class Sink:
    """Takes lines without ever making the daemon wait or fail.

    What cannot be written is dropped and counted: nobody reads, the reader is gone, the disk is full.
    """

    def __init__(self, fd: int) -> None:
        self._fd = _own_description(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._torn = False
        self.lost = 0
        """Lines dropped since the last one that was written."""

    def write(self, line: str) -> None:
        """Write a line, or drop it."""
        data = b"\n" * self._torn + line.encode(errors="backslashreplace") + b"\n"
        left = data
        try:
            while left and self._poll.poll(0):
                left = left[os.write(self._fd, left[: select.PIPE_BUF]) :]
        except OSError:
            pass
        self._torn = bool(left) and (self._torn or left != data)
        self.lost = self.lost + 1 if left else 0


def _own_description(fd: int) -> int:
    """Open a pipe or terminal once more, so that it can be made not to block for this process alone."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it belongs to somebody else, or has no reader: looking before writing has to do
        pass
    return fd


class _Logger:
    """Writes lines and knows in which module they were written."""

    def __init__(self, sink: Sink, name: str) -> None:
        self.sink = sink
        self.path = name.split(".")

    def msg(self, line: str) -> None:
        """Write a line."""
        self.sink.write(line)

    debug = info = warning = error = critical = exception = log = msg


def configure(*, debug: bool) -> None:
    """Set up logging once, at the start."""
    control.set_level("debug" if debug else "info")
    terminal = sys.stderr.isatty()
    sink = Sink(2)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    errors = [] if terminal else [structlog.processors.dict_tracebacks]
    structlog.configure(
        processors=[
            _drop,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *errors,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda name="": _Logger(sink, name),
        cache_logger_on_first_use=True,
    )


def _drop(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if not control.passes(method, logger.path):
        raise structlog.DropEvent
    if logger.sink.lost:
        event["lines_lost"] = logger.sink.lost
    return event
