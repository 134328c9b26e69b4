"""The guard's own log on stderr, in the format of the daemon: JSON, or text on a terminal."""

import json
import os
import time

from instance_manager.platform.writer import NonBlockingWriter

LONGEST_VALUE = 1000
"""Longest value in characters: a line shorter than PIPE_BUF is written whole or not at all."""


class Log:
    """Writes lines without ever waiting for a reader: the guard must go on if nobody reads the pipe."""

    def __init__(self, fd: int = 2) -> None:
        self._terminal = os.isatty(fd)
        self._writer = NonBlockingWriter(fd, room=0)

    def info(self, event: str, **values: str | float) -> None:
        """Log something expected."""
        self._write("info", event, values)

    def warning(self, event: str, **values: str | float) -> None:
        """Log something unexpected that the guard handles."""
        self._write("warning", event, values)

    def error(self, event: str, **values: str | float) -> None:
        """Log something that needs attention."""
        self._write("error", event, values)

    def _write(self, level: str, event: str, values: dict[str, str | float]) -> None:
        if self._writer.lost:
            values["lines_lost"] = self._writer.lost
        cut = {key: v[:LONGEST_VALUE] if isinstance(v, str) else v for key, v in values.items()}
        line = _as_text(level, event, cut) if self._terminal else _as_json(level, event, cut)
        self._writer.write(line.encode(errors="replace"))


def _as_json(level: str, event: str, values: dict[str, str | float]) -> str:
    whole = {"event": event, **values, "level": level, "logger": "guard", "pid": os.getpid()}
    return json.dumps(whole | {"timestamp": _now()}) + "\n"


def _as_text(level: str, event: str, values: dict[str, str | float]) -> str:
    return f"{_now()} [{level:<7}] {event} " + " ".join(f"{k}={v}" for k, v in values.items()) + "\n"


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{nanoseconds // 1000:06d}Z"
