"""Every exit code, and the one line that comes with it."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from instance_manager.cli.exit_codes import MEANINGS, ExitCode, of_status
from tests.support.cli import on_terminal, run
from tests.support.daemon import Daemon, Watch, sleeper
from tests.support.fake_daemon import fake_daemon
from tests.support.patience import patience

CREATE = ("process", "create", "--binary", "/bin/sleep", "--name")


def test_every_status_has_a_code_that_has_a_meaning() -> None:
    codes = {of_status(status.name) for status in grpc.StatusCode if status is not grpc.StatusCode.OK}
    assert codes == set(MEANINGS) - {ExitCode.OK, ExitCode.INTERRUPTED}
    assert set(MEANINGS) == set(ExitCode)


async def test_every_refusal_of_the_daemon_has_its_code_and_is_one_line(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("r1"))
        await watch.state("r1", "running")
    replace = ("process", "replace", "--name", "r1", "--binary")
    refusals = {
        (*CREATE, "R1"): (2, "INVALID_ARGUMENT"),
        (*replace, "/bin/x", "--terminate-signal", "SIGTERM"): (2, "INVALID_ARGUMENT"),
        ("process", "get", "r2"): (3, "NOT_FOUND"),
        ("process", "delete", "r1", "--uuid", "x"): (3, "NOT_FOUND"),
        ("health", "--service", "none"): (3, "NOT_FOUND"),
        (*CREATE, "r1"): (4, "ALREADY_EXISTS"),
        (*CREATE, "r2", "--port-count", "60000"): (7, "RESOURCE_EXHAUSTED"),
        (*replace, "/no/such/file"): (8, "FAILED_PRECONDITION"),
    }
    results = await asyncio.gather(*(run("--url", daemon.url, *refused) for refused in refusals))
    for result, (code, status) in zip(results, refusals.values(), strict=True):
        assert (result.code, result.out) == (code, ""), result
        assert re.fullmatch(rf"cannot .*\({status}\)", result.error)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["process", "nosuch"], "No such command 'nosuch'"),
        (["process", "create", "--name", "r1"], "Missing option '--binary'"),
        (["process", "wait", "r1"], "Missing option '--for'"),
        (["process", "list", "-o", "xml"], "'xml' is not one of"),
        (["process", "log", "r1", "--tail", "-1"], "-1 is not in the range"),
        (["--url", "http://x", "process", "list"], "cannot use the URL 'http://x'"),
        (["--url", "tcp://127.0.0.1:99999", "health"], "cannot use the URL 'tcp://127.0.0.1:99999'"),
        ([*CREATE, "r1", "--", "\udcff"], "cannot send an argument that is not UTF-8"),
    ],
)
async def test_wrong_usage_is_exit_code_2(arguments: list[str], complaint: str) -> None:
    result = await run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert re.search(rf"^Error: .*{re.escape(complaint)}", result.err, re.MULTILINE)


@contextlib.contextmanager
def nobody_answers() -> Iterator[str]:
    """A port whose backlog is full: a connection is neither taken nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def refused() -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{bound.getsockname()[1]}"


async def test_a_daemon_out_of_reach_is_told_in_one_line_and_soon(tmp_path: Path) -> None:
    with refused() as closed, nobody_answers() as silent:
        urls = {
            closed: "connection refused",
            silent: "timed out",
            f"unix://{tmp_path}/none": "no such file or directory",
        }
        async with asyncio.timeout(patience(15)):
            results = await asyncio.gather(*(run("--url", url, "process", "list") for url in urls))
    for result, (url, reason) in zip(results, urls.items(), strict=True):
        assert (result.code, result.out) == (5, "")
        where = f"cannot reach the instance manager at {url}"
        assert re.fullmatch(rf"{where}: {reason}; is it running\? Use --url to name another", result.error)


async def test_every_command_has_the_same_words_for_it(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none"
    commands = [
        ["health"],
        ["process", "watch"],
        ["process", "wait", "r1", "--for", "deleted"],
    ]
    results = await asyncio.gather(*(run("--url", url, *command) for command in commands))
    assert {(result.code, result.error) for result in results} == {
        (5, results[0].error),
    }


async def test_debug_shows_the_traceback_too(tmp_path: Path) -> None:
    result = await run("--debug", "--url", f"unix://{tmp_path}/none", "health")
    assert result.code == 5
    assert result.err.startswith("Traceback (most recent call last):")
    assert result.err.splitlines()[-1].startswith("Error: cannot reach the instance manager")


async def test_a_connection_that_is_lost_is_a_daemon_out_of_reach(daemon: Daemon) -> None:
    async with on_terminal("--url", daemon.url, "process", "watch") as (process, terminal):
        await terminal.shows("Watching")
        await daemon.stop(signal.SIGKILL)
        async with asyncio.timeout(patience(20)):
            assert await process.wait() == 5
        await terminal.shows("\nError: cannot reach the instance manager at .*\n$")


async def test_no_answer_in_time_is_exit_code_6(tmp_path: Path) -> None:
    url = f"unix:{tmp_path}/fake.sock"
    async with fake_daemon(url) as fake:
        fake.never_answers = True
        late = await run("--url", url, "process", "wait", "r1", "--for", "running", "--timeout", "0.3")
        assert late.code == 6
        assert late.error == "cannot wait any longer for r1 to be running: after 0.3 s it is unknown"
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        late = await run("--url", f"unix://{path}", "health", "--timeout", "0.3")
    assert late.code == 6
    assert late.error == f"cannot get an answer from the instance manager at unix://{path} in time"


@pytest.mark.parametrize(
    ("status", "details", "code", "told"),
    [
        ("UNAVAILABLE", "cannot do it:\n the  end", 5, r"cannot do it: the end \(UNAVAILABLE\)"),
        ("UNAVAILABLE", "Gone", 5, "cannot reach the instance manager at .*: gone; is it running.*"),
        ("UNAVAILABLE", "TLS went", 5, "cannot reach the instance manager at .*: TLS went; is it running.*"),
        ("CANCELLED", "CANCELLED", 5, "cannot get an answer from .*: it has dropped the call.*; ask again"),
        ("DEADLINE_EXCEEDED", "cannot do it", 6, r"cannot do it \(DEADLINE_EXCEEDED\)"),
        ("DEADLINE_EXCEEDED", "Deadline", 6, "cannot get an answer from .* in time"),
        ("OUT_OF_RANGE", "cannot resume", 8, r"cannot resume \(OUT_OF_RANGE\)"),
        ("UNIMPLEMENTED", "cannot suspend", 2, r"cannot suspend \(UNIMPLEMENTED\)"),
        ("INTERNAL", "internal error 1", 1, r"internal error 1 \(INTERNAL\)"),
        ("UNKNOWN", "", 1, r"the call failed for an unknown reason \(UNKNOWN\)"),
    ],
)
async def test_what_the_daemon_says_is_told_in_its_words(
    status: str, details: str, code: int, told: str, tmp_path: Path
) -> None:
    url = f"unix:{tmp_path}/fake.sock"
    async with fake_daemon(url) as fake:
        fake.refusal = grpc.StatusCode[status], details
        result = await run("--url", url, "process", "list")
    assert (result.code, result.out) == (code, "")
    assert re.fullmatch(told, result.error)


async def test_a_full_disk_is_exit_code_1() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with on_terminal("version", "--client", stdout=full) as (process, terminal):
        os.close(full)
        async with asyncio.timeout(patience(20)):
            assert await process.wait() == 1
        await terminal.shows("^Error: cannot write the output: No space left on device\n$")
