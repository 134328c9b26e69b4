"""Running a program to its end, without a thread, and with a bound of time: it may hang in the kernel."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from instance_manager.platform import contract

INHERITED = 3
"""Descriptor of what a program inherits besides its output."""
_MOST_OUTPUT = 1 << 20
"""Bytes of each stream that are kept."""
_CHUNK = 64 << 10
_DYING, _LOOK = 1.0, 0.005
"""Seconds in which all that a program has started ends when it is killed, and between two looks."""
SHELL = "/bin/sh"
ENTER_CGROUP = f"echo 0 >/proc/self/fd/{INHERITED}/cgroup.procs"
"""By which a shell enters the cgroup whose directory it inherits, with all that it becomes or starts."""
_TELL_STATUS = (SHELL, "-c", '"$@"; printf "\\n%d" "$?"', "sh")
"""The status is printed, because whoever reaps strangers in this process may be first to learn of it."""


class CommandError(Exception):
    """A program has failed; the message is what it said on stderr, or on stdout."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a program has printed."""

    stdout: str
    stderr: str


async def run_checked(
    command: Sequence[str], within: float, environment: Mapping[str, str], inherited: int | None = None
) -> Output:
    """Run a program like `run`, and check that it succeeds.

    Raises:
        CommandError: if it does not, or if there is no such program.
        TimeoutError: if it does not end in time.
    """
    try:
        output = await run((*_TELL_STATUS, *command), within, environment, inherited)
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise CommandError(f"cannot run {command[0]}: {error.strerror or error}") from error
    stdout, _, status = output.stdout.rpartition("\n")
    if status != "0":
        raise CommandError(
            output.stderr.strip() or stdout.strip() or f"{command[0]} ended with status {status}"
        )
    return Output(stdout, output.stderr)


async def run(
    command: Sequence[str], within: float, environment: Mapping[str, str], inherited: int | None = None
) -> Output:
    """Run a program and return what it has printed when it ends; what hangs is killed, and left behind.

    Args:
        command: program and arguments.
        within: seconds.
        environment: all of it.
        inherited: a descriptor that is `INHERITED` in the program.

    Raises:
        OSError: if it cannot be started.
        TimeoutError: if it does not end in time.
    """
    with ExitStack() as stack:
        pipes = []
        for _ in range(2):
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            stack.callback(os.close, reader)
            pipes.append((reader, writer))
        try:
            pid = _spawn(command, environment, [writer for _, writer in pipes], inherited)
        finally:
            for _, writer in pipes:
                os.close(writer)
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        streams = [_Stream(reader) for reader, _ in pipes]
        for stream in streams:
            stack.callback(stream.close)
        await _ended(pid, pidfd, within)
        return Output(*(stream.rest() for stream in streams))


class _Stream:
    """Reads a pipe while the program runs: one that is full would stop it."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._bytes = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(reader, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            if not (chunk := os.read(self._reader, _CHUNK)):
                self.close()
            # The end of it: the status is there.
            self._bytes = (self._bytes + chunk)[-_MOST_OUTPUT:]

    def rest(self) -> str:
        """Return all that there is; what a child left behind writes is not waited for."""
        before = -1
        while before != len(self._bytes):
            before = len(self._bytes)
            self._read()
        return self._bytes.decode(errors="replace")

    def close(self) -> None:
        """Read no more."""
        self._loop.remove_reader(self._reader)


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], outputs: Sequence[int], inherited: int | None
) -> int:
    out, err = outputs
    return os.posix_spawnp(
        command[0],
        list(command),
        {**environment, "LC_ALL": "C", contract.UUID_VARIABLE: contract.NO_INSTANCE},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
            *([] if inherited is None else [(os.POSIX_SPAWN_DUP2, inherited, INHERITED)]),
        ],
        setpgroup=0,
        setsigmask=(),
        setsigdef=signal.valid_signals(),
    )


async def _ended(pid: int, pidfd: int, within: float) -> None:
    """Wait for the end of a program; at the end of the time, or if cancelled, its group is killed."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(within):
            await ended.wait()
    except BaseException:
        # It leads its group until it is reaped.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
            os.killpg(pid, signal.SIGKILL)
            await _gone(pid, pidfd)
        raise
    finally:
        loop.remove_reader(pidfd)
    _reap(pidfd)


async def _gone(group: int, pidfd: int) -> None:
    """Wait for the end of a group that was killed, but not for ever: in the kernel it may never come."""
    with suppress(ProcessLookupError, TimeoutError):
        async with asyncio.timeout(_DYING):
            while True:
                _reap(pidfd)
                os.killpg(group, 0)
                await asyncio.sleep(_LOOK)  # nothing tells the end of a group


def _reap(pidfd: int) -> None:
    with suppress(ChildProcessError):  # who reaps strangers may have been first
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
