"""Exit codes of the command line. Scripts rely on them; docs/cli.md and `process --help` list them."""

from collections.abc import Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    ALREADY_EXISTS = 4
    UNREACHABLE = 5
    TIMEOUT = 6
    EXHAUSTED = 7
    IMPOSSIBLE = 8
    INTERRUPTED = 130


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILURE: "any other failure",
    ExitCode.USAGE: "wrong usage, or a request that can never succeed",
    ExitCode.NOT_FOUND: "no process or instance has this name and UUID",
    ExitCode.ALREADY_EXISTS: "the name is taken, or the process changed meanwhile",
    ExitCode.UNREACHABLE: "the daemon cannot be reached, or is ending",
    ExitCode.TIMEOUT: "timed out",
    ExitCode.EXHAUSTED: "no ports, processes or memory are left",
    ExitCode.IMPOSSIBLE: "the state does not allow it, or the changes asked for are no longer remembered",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}

_BY_STATUS: Mapping[str, ExitCode] = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "UNIMPLEMENTED": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "ALREADY_EXISTS": ExitCode.ALREADY_EXISTS,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "CANCELLED": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.TIMEOUT,
    "RESOURCE_EXHAUSTED": ExitCode.EXHAUSTED,
    "FAILED_PRECONDITION": ExitCode.IMPOSSIBLE,
    "OUT_OF_RANGE": ExitCode.IMPOSSIBLE,
}


class Failure(Exception):  # noqa: N818 - it says how a command ended, not what went wrong in the code
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def of_status(name: str) -> ExitCode:
    """Return the exit code for a gRPC status, by the name of the status."""
    return _BY_STATUS.get(name, ExitCode.FAILURE)


def table() -> str:
    """Return the exit codes as text for the help of a command."""
    rows = "\n".join(f"  {code:<4} {meaning}" for code, meaning in MEANINGS.items())
    return f"\b\nExit codes:\n{rows}"
