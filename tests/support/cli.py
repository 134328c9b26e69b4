"""The installed program as a test runs it: in a pipe, or on a terminal."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.daemon import BIN, Daemon
from tests.support.patience import patience

OURS = (
    "INSTANCE_MANAGER_",
    "_INSTANCE_MANAGER_",
    "GRPC_",
    "PYTHONUNBUFFERED",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which nothing changes what the program does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = f"{BIN.parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "TERM": "xterm-256color", **(extra or {})}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that tells why it failed."""
        assert self.err.startswith("Error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("Error: ").rstrip("\n")


async def run(*args: str, env: Mapping[str, str] | None = None) -> Result:
    """Run it with its output in pipes."""
    return await executed(str(BIN), *args, env=env)


async def executed(*command: str, env: Mapping[str, str] | None = None) -> Result:
    """Run any program with its output in pipes."""
    async with _started(command, env, {}) as process, asyncio.timeout(patience(30)):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def ok(daemon: Daemon, *args: str, env: Mapping[str, str] | None = None) -> Result:
    """Run it against a daemon; it has to succeed without a word on stderr."""
    result = await run("--url", daemon.url, *args, env=env)
    assert (result.code, result.err) == (0, ""), result
    return result


def started(
    *args: str, env: Mapping[str, str] | None = None, **streams: Any
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Run it for the time of the block."""
    return _started((str(BIN), *args), env, streams)


@contextlib.asynccontextmanager
async def _started(
    command: Sequence[str], env: Mapping[str, str] | None, streams: Mapping[str, Any]
) -> AsyncIterator[asyncio.subprocess.Process]:
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(env), stdin=asyncio.subprocess.DEVNULL, **(pipes | dict(streams))
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Terminal:
    """A terminal, and what has been written to it."""

    def __init__(self, columns: int) -> None:
        self._master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.set_blocking(self._master, False)
        self._arrived = asyncio.Event()
        self._raw = b""
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._raw += os.read(self._master, 65536)
            self._arrived.set()

    @property
    def text(self) -> str:
        """All of it, with its colours."""
        return self._raw.decode().replace("\r\n", "\n")

    @property
    def plain(self) -> str:
        """All of it, without its colours."""
        return ESCAPES.sub("", self.text)

    async def shows(self, pattern: str, within: float = 20) -> re.Match[str]:
        """Wait until it shows a text, colours aside."""
        try:
            async with asyncio.timeout(patience(within)):
                while (found := re.search(pattern, self.plain)) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"{pattern!r} is not shown: {self.text!r}") from None
        return found

    def close(self) -> None:
        """Read what is left and close it."""
        self._read()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self.slave)


@contextlib.asynccontextmanager
async def on_terminal(
    *args: str, columns: int = 120, env: Mapping[str, str] | None = None, **streams: Any
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Terminal]]:
    """Run it on a terminal for the time of the block, stderr included unless `streams` says otherwise."""
    terminal = Terminal(columns)
    streams = {"stdout": terminal.slave, "stderr": terminal.slave} | streams
    try:
        async with started(*args, env=env, **streams) as process:
            yield process, terminal
    finally:
        terminal.close()


async def shown(url: str, *args: str, columns: int = 120, env: Mapping[str, str] | None = None) -> str:
    """Run it on a terminal and return what it shows, with colours."""
    async with on_terminal("--url", url, *args, columns=columns, env=env) as (process, terminal):
        async with asyncio.timeout(patience(30)):
            assert await process.wait() == 0, terminal.text
    return terminal.text


async def interrupted(process: asyncio.subprocess.Process) -> int:
    """Press Ctrl-C and return the exit code."""
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(patience(20)):
        return await process.wait()
