"""The daemon's own log, on stderr: coloured text on a terminal, otherwise JSON.

The level can be changed while the daemon runs, and areas can be set to log in detail whatever the level.
"""

import asyncio
import atexit
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

import structlog

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.platform.writer import NonBlockingWriter

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
"""Log levels by the names that clients use, in lower case."""
_ADOPTION = ("app.adoption", "adapters.process.adoption")
AREAS = {
    "adoption": _ADOPTION,
    "api": ("api",),
    "journal": ("adapters.journal",),
    "logs": ("adapters.logs",),
    "mounts": ("adapters.mounts", "adapters.thaw"),
    "process": ("adapters.process",),
    "readiness": ("adapters.readiness",),
    "recovery": _ADOPTION,
    "spdk": ("adapters.spdk", "app.spdk"),
    "supervisor": ("app.supervisor", "app.action_runner", "app.replace"),
}
"""Areas that can log in detail on their own: the modules and packages of each. `recovery` is an old name."""
_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
_AUDIT = "app.audit"
"""Audit lines ignore the level, so a caller cannot hide by lowering it."""


class LogControl:
    """The log level and flags. As there is one log, there is one instance: `control`."""

    def __init__(self) -> None:
        self.level = "info"
        """Name of the level, in lower case."""
        self._areas: frozenset[str] = frozenset()
        self._on_change: Callable[[str], object] = lambda _: None

    @property
    def settings(self) -> str:
        """Level and areas as text for `restore`."""
        return f"{self.level}\n{self.flags}\n"

    def restore(self, settings: str) -> None:
        """Log as much as at an earlier time.

        Raises:
            InvalidArgumentError: if that is none.
        """
        level, _, flags = settings.partition("\n")
        self.set_level(level)
        self.set_flags(flags)

    def observe(self, on_change: Callable[[str], object]) -> None:
        """Call a function with the settings whenever a caller has set them."""
        self._on_change = on_change

    @property
    def flags(self) -> str:
        """The areas that log in detail, separated by commas."""
        return ",".join(sorted(self._areas))

    def set_level(self, name: str) -> None:
        """Set the log level.

        Raises:
            InvalidArgumentError: if there is no such level.
        """
        if name.lower() not in LEVELS:
            raise InvalidArgumentError(f"cannot use the log level {name!r}: it is one of {', '.join(LEVELS)}")
        self.level = name.lower()
        self._on_change(self.settings)

    def set_flags(self, text: str) -> None:
        """Let exactly these areas, separated by commas, log in detail whatever the level.

        Raises:
            InvalidArgumentError: if there is no such area.
        """
        areas = {word.strip() for word in text.split(",")} - {""}
        if unknown := sorted(areas - set(AREAS)):
            raise InvalidArgumentError(
                f"cannot let {', '.join(unknown)} log in detail: there are {', '.join(AREAS)}"
            )
        self._areas = frozenset(areas)
        self._on_change(self.settings)

    def passes(self, level: str, areas: AbstractSet[str]) -> bool:
        """Return whether to log a line, given its level and the areas of its module."""
        return LEVELS[level] >= LEVELS[self.level] or not self._areas.isdisjoint(areas)


control = LogControl()


class Sink:
    """Writes lines without ever making the daemon wait or fail; thread-safe.

    What waits for a slow reader is written by the event loop, or by the next line.
    """

    ROOM = 1 << 20

    def __init__(self, fd: int) -> None:
        self._writer = NonBlockingWriter(fd, self.ROOM)
        self._lock = threading.RLock()  # a finalizer may log in the middle of a line

    @property
    def lost(self) -> int:
        """Number of lines dropped since the last one that was accepted."""
        return self._writer.lost

    def write(self, line: str) -> None:
        """Write a line, now or later, or drop it."""
        with self._lock:
            self._writer.write(line.encode(errors="backslashreplace") + b"\n")
            if self._writer.pending:
                # Without a loop in this thread, the next line is the next attempt.
                with suppress(RuntimeError):
                    loop = asyncio.get_running_loop()
                    loop.add_writer(self._writer.fd, self._resume, loop)

    def drain(self, within: float) -> None:
        """Wait up to `within` seconds until all lines are written."""
        with self._lock:
            self._writer.drain(within)

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._writer.flush()
            if not self._writer.pending:
                loop.remove_writer(self._writer.fd)


def _is_in(module: str, parts: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"instance_manager.{part}.") for part in parts)


class _Logger:
    """Writes the lines of one module."""

    def __init__(self, sink: Sink, module: str) -> None:
        self.sink = sink
        self.areas = {area for area, parts in AREAS.items() if _is_in(module, parts)}
        self.is_audit = _is_in(module, [_AUDIT])

    def write(self, line: str) -> None:
        """Write a line."""
        self.sink.write(line)

    debug = info = warning = error = write


def _method(level: str, **extra: Any) -> Callable[..., None]:
    def log(self: "_BoundLogger", event: str, **values: Any) -> None:
        if self._logger.is_audit or control.passes(level, self._logger.areas):
            self._proxy_to_logger(level, event, **extra, **values)

    return log


class _BoundLogger(structlog.BoundLoggerBase):
    """Drops lines before anything is formatted: with debug off, a debug line costs a microsecond."""

    debug = _method("debug")
    info = _method("info")
    warning = _method("warning")
    error = _method("error")
    exception = _method("error", exc_info=True)


def configure(*, debug: bool) -> None:
    """Set up logging, once, at the start of the program."""
    control.set_level("debug" if debug else "info")
    terminal = sys.stderr.isatty()
    sink = Sink(2)
    atexit.register(sink.drain, 1.0)
    # Tracebacks without the values of variables: a request may have credentials in it.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    errors = [] if terminal else [structlog.processors.ExceptionRenderer(_TRACEBACKS)]
    structlog.configure(
        processors=[
            _add_lines_lost,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *errors,
            renderer,
        ],
        wrapper_class=_BoundLogger,
        logger_factory=lambda name="": _Logger(sink, name),
        cache_logger_on_first_use=True,
    )
    # What libraries log would be written to stderr directly, and wait for its reader.
    logging.basicConfig(handlers=[_LibraryLines()], level=logging.WARNING)
    logging.captureWarnings(capture=True)
    if not terminal:
        _log_uncaught()


class _LibraryLines(logging.Handler):
    """Writes what libraries log with Python's `logging` as lines of this log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        method = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(structlog.get_logger(record.name), method)(record.getMessage(), exc_info=record.exc_info)


def _log_uncaught() -> None:
    """Log exceptions that Python itself would write to stderr, in a format of its own."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: Any, **where: str) -> None:
        structlog.get_logger(__name__).error("uncaught exception", exc_info=(kind, error, trace), **where)

    sys.excepthook = uncaught
    sys.unraisablehook = lambda args: uncaught(
        args.exc_type, args.exc_value, args.exc_traceback, where=repr(args.object)
    )
    threading.excepthook = lambda args: uncaught(
        args.exc_type, args.exc_value, args.exc_traceback, where=args.thread.name if args.thread else ""
    )


def _add_lines_lost(
    logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if logger.sink.lost:
        event["lines_lost"] = logger.sink.lost
    return event
