"""Helper daemons beside the guarded program: they belong to no instance, and outlive every daemon."""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from instance_manager.client import Client
from instance_manager.guard import keeper
from instance_manager.guard.keeper import Helper
from instance_manager.guard.log import LONGEST_VALUE, Log
from instance_manager.guard.status import Status
from tests.support.daemon import Watch, marked, port_span, shell
from tests.support.guard import (
    PROGRAM,
    STUB,
    Guard,
    children_of,
    cpu_ticks,
    gone,
    guarding,
    reached,
    status,
    strings,
)
from tests.support.processes import lives

HELPER = Path(__file__).parents[1] / "support" / "helper_program.py"
LIMIT_KIB = 15 * 1024


def helper(folder: Path, *habits: str, name: str = "tgtd") -> str:
    return f"--helper={name}={shlex.join([sys.executable, str(HELPER), str(folder), *habits])}"


@asynccontextmanager
async def helped(
    folder: Path, *habits: str, command: Sequence[str] = STUB, **settings: Any
) -> AsyncIterator[tuple[Guard, int]]:
    """Guard a command beside a helper with these habits; yields the helper's PID too."""
    async with guarding(
        folder / "state",
        *command,
        options=[helper(folder, *habits), *settings.pop("options", ())],
        **settings,
    ) as guard:
        await guard.logged("helper output")
        yield guard, pid_in(folder / "pid")


def pid_in(file: Path) -> int:
    return int(file.read_text())


def keeper_of(guard: Guard) -> int:
    (found,) = [pid for pid in guard.children() if "instance_manager.guard.keeper" in strings(pid, "cmdline")]
    return found


async def test_a_helper_is_started_before_the_daemon_as_a_child_of_neither(tmp_path: Path) -> None:
    async with helped(tmp_path) as (guard, pid):
        daemon = await guard.started()
        told = await guard.logged("helper started")
        assert (told["helper"], told["helper_pid"], told["command"]) == ("tgtd", pid, sys.executable)
        events = [line["event"] for line in guard.events("helper started", "daemon started")]
        assert events == ["helper started", "daemon started"]
        assert children_of(keeper_of(guard)) == [pid]
        assert daemon in guard.children()
        assert not [line for line in strings(pid, "environ") if line.startswith("INSTANCE_MANAGER_GUARD")]
        assert int(status(pid)["SigBlk"], 16) == 0
        await guard.printed("listening")
        assert await guard.stop() == 0


async def test_what_it_prints_is_in_the_guards_log(tmp_path: Path) -> None:
    async with helped(tmp_path, "once more") as (guard, _):
        told = await guard.logged("helper output")
        assert (told["helper"], told["line"], told["level"]) == ("tgtd", "helping once more", "info")
        await guard.printed("listening")
        assert await guard.stop() == 0


async def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    async with helped(tmp_path) as (guard, pid):
        os.kill(pid, signal.SIGKILL)
        died = await guard.logged("helper died")
        assert (died["helper"], died["helper_pid"], died["status"]) == ("tgtd", pid, "signal SIGKILL")
        await guard.logged("helper output", 2)
        assert pid_in(tmp_path / "pid") != pid
        assert (await guard.logged("helper will be started again"))["in_seconds"] == keeper.FIRST_DELAY
        assert guard.events("daemon died") == []
        await guard.printed("listening")
        assert await guard.stop() == 0


async def test_one_that_keeps_failing_is_started_more_and_more_slowly(tmp_path: Path) -> None:
    async with guarding(tmp_path / "state", *STUB, options=[helper(tmp_path, "fail")]) as guard:
        await guard.logged("helper will be started again", 3)
        delays = [line["in_seconds"] for line in guard.events("helper will be started again")]
        assert delays[:3] == [0.1, 0.2, 0.4]
        assert (await guard.logged("helper died"))["status"] == "code 3"
        await guard.printed("listening")
        assert await guard.stop() == 0


def test_the_delay_has_a_longest_and_begins_anew_after_a_steady_run(
    capfd: pytest.CaptureFixture[str],
) -> None:
    one = Helper("tgtd", ["true"], Log())
    now, delays = 0.0, []
    for ran in (0.0,) * 12 + (keeper.STEADY, 0.0):
        one.start(now)
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        pid = one.pid
        one.ended(Status(), now + ran, asked_to_end=False)
        os.waitpid(pid, 0)
        assert one.start_at is not None
        delays.append(one.start_at - now - ran)
        now = one.start_at
    assert delays == pytest.approx([0.1 * 2**step for step in range(9)] + [30.0] * 3 + [0.1, 0.2])
    assert "helper died" in capfd.readouterr().err
    for fd in (one.output, one._writer):
        os.close(fd)


async def test_a_command_that_does_not_exist_is_told_and_the_daemon_runs(tmp_path: Path) -> None:
    options = ["--helper", "tgtd=/nowhere/tgtd -f"]
    async with guarding(tmp_path, *STUB, options=options) as guard:
        told = await guard.logged("helper cannot be started")
        assert (told["helper"], told["error"]) == ("tgtd", "/nowhere/tgtd: No such file or directory")
        assert (await guard.logged("helper will be started again"))["in_seconds"] == keeper.LONGEST_DELAY
        await guard.printed("listening")
        assert await guard.stop() == 0


async def test_a_daemon_that_is_killed_leaves_helpers_alone(tmp_path: Path) -> None:
    async with helped(tmp_path) as (guard, pid):
        await guard.printed("listening")
        os.kill(await guard.started(), signal.SIGKILL)
        await guard.printed("listening", 2)
        assert lives(pid)
        assert len(guard.events("helper started")) == 1
        assert await guard.stop() == 0
        assert not lives(pid)


async def test_helpers_end_after_the_daemon_and_so_does_what_they_have_left_behind(tmp_path: Path) -> None:
    async with helped(tmp_path, "deaf", "leave", command=(*STUB, "--stop-exit", "7")) as (guard, pid):
        await reached((tmp_path / "left").exists)
        await guard.printed("listening")
        assert await guard.stop() == 7
        assert not lives(pid)
        assert not lives(pid_in(tmp_path / "left"))
        await guard.logged("helper ended")
        order = [line["event"] for line in guard.events("daemon ended", "ending helpers", "helper ended")]
        assert order == ["daemon ended", "ending helpers", "helper ended"]
        assert guard.records() == {}


async def test_no_helper_is_taken_for_an_instance(tmp_path: Path) -> None:
    """The guard would not end with its daemon while one lives."""
    async with helped(tmp_path, "leave", command=(*STUB, "--exit-after", "0.1", "--exit", "0")) as (guard, _):
        assert await guard.ended() == 0
        assert guard.events("daemon died") == []


async def test_instances_are_ended_before_helpers_when_no_daemon_does_it(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("3")
    async with helped(
        tmp_path,
        command=("fail", str(tmp_path), "obedient"),
        program=PROGRAM,
        options=["--restarts", "1"],
        environment={"SLOW_DELAY": "1000"},
    ) as (guard, pid):
        await guard.logged("daemon keeps dying")
        assert await guard.stop() == 143
        assert (await guard.logged("ending instances"))["instances"] == 1
        await guard.logged("helper ended")
        order = [line["event"] for line in guard.events("instances ended", "ending helpers", "helper ended")]
        assert order == ["instances ended", "ending helpers", "helper ended"]
        assert (await guard.logged("helper ended"))["helper_pid"] == pid


async def test_the_keeper_is_replaced_when_it_is_killed_and_the_helper_runs_on(tmp_path: Path) -> None:
    async with helped(tmp_path, "only") as (guard, pid):
        os.kill(keeper_of(guard), signal.SIGKILL)
        assert (await guard.logged("keeper of the helpers died"))["status"] == "signal SIGKILL"
        await guard.logged("helper started", 2)
        await guard.logged("helper died")  # there is another
        assert lives(pid)
        os.kill(pid, signal.SIGKILL)
        await reached(lambda: pid_in(tmp_path / "pid") != pid)
        await guard.printed("listening")
        assert await guard.stop() == 0


async def test_a_keeper_that_was_stopped_ends_its_helpers_all_the_same(tmp_path: Path) -> None:
    async with helped(tmp_path) as (guard, pid):
        await guard.printed("listening")
        os.kill(keeper_of(guard), signal.SIGSTOP)
        assert await guard.stop() == 0
        await guard.logged("helper ended")
        assert not lives(pid)


@asynccontextmanager
async def abandoned(guard: Guard) -> AsyncIterator[int]:
    """Kill a guard and then what it guards; yields the PID of the keeper, which has to end by itself."""
    await guard.printed("listening")
    daemon, pid = await guard.started(), keeper_of(guard)
    guard.send(signal.SIGKILL)
    await guard.ended()
    os.kill(daemon, signal.SIGKILL)
    yield pid
    await gone([daemon, pid])


async def test_a_keeper_without_its_guard_lets_a_helper_run_and_starts_none_again(tmp_path: Path) -> None:
    async with helped(tmp_path, "leave") as (guard, pid):
        await reached((tmp_path / "left").exists)
        async with abandoned(guard) as its_keeper:
            await guard.logged("guard is gone: its helpers are not started again")
            assert lives(pid)
            os.kill(pid, signal.SIGKILL)
            await guard.logged("helper died")
            assert lives(its_keeper), "of one that has left something behind"
            os.kill(pid_in(tmp_path / "left"), signal.SIGKILL)
    assert len(guard.events("helper started")) == 1


async def test_a_keeper_without_its_guard_ends_if_no_helper_runs(tmp_path: Path) -> None:
    async with (
        guarding(tmp_path / "state", *STUB, options=["--helper", "tgtd=/nowhere/tgtd -f"]) as guard,
        abandoned(guard),
    ):
        pass


@pytest.mark.parametrize("command", ["yes", "cat /dev/zero"])
async def test_one_that_prints_without_end_costs_little(tmp_path: Path, command: str) -> None:
    async with guarding(tmp_path / "state", *STUB, options=[f"--helper=loud={command}"]) as guard:
        await guard.printed("listening")
        pid = keeper_of(guard)
        ticks, begin = cpu_ticks(pid), time.monotonic()
        seen = len(guard.lines)

        def left_out() -> list[dict[str, Any]] | None:
            found = [line for line in guard.lines[seen:] if line.get("lines_left_out")]
            return found if len(found) >= 3 else None

        found = await guard.seen(left_out)
        used = (cpu_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK")
        assert used < 0.3 * (time.monotonic() - begin)
        between = guard.lines[guard.lines.index(found[0]) : guard.lines.index(found[-1])]
        assert len(between) <= 2 * keeper.MOST_LINES + 10
        assert await guard.stop() == 0


def test_what_is_printed_too_fast_is_left_out_and_counted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    one = Helper("loud", ["true"], Log())
    most, now = keeper.MOST_LINES, 1000.0

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    def say(*lines: str) -> None:
        os.write(one._writer, "".join(f"{line}\n" for line in lines).encode())

    say(*map(str, range(most + 3)))
    one.read(now)
    assert [line["line"] for line in told()] == [str(number) for number in range(most)]
    assert one.read_at == now + keeper.PAUSE
    say("dropped")
    one.read(now + 0.5)
    assert told() == []
    say("next", "one more")
    one.read(now + 1)
    assert [(line["line"], line.get("lines_left_out")) for line in told()] == [
        ("next", 4),
        ("one more", None),
    ]
    assert one.read_at <= now + 1
    for number in range(most):
        say(f"{number}".ljust(LONGEST_VALUE, "."))
        one.read(now + 2)
    assert len(told()) == keeper.MOST_BYTES // LONGEST_VALUE
    for fd in (one.output, one._writer):
        os.close(fd)


async def test_guard_and_keeper_are_small(tmp_path: Path) -> None:
    async with helped(tmp_path) as (guard, _):
        await guard.printed("listening")
        assert guard.resident_kib() < LIMIT_KIB
        assert int(status(keeper_of(guard))["VmRSS"].split()[0]) < LIMIT_KIB
        assert await guard.stop() == 0


async def test_helpers_come_from_the_environment_too_one_in_a_line(tmp_path: Path) -> None:
    lines = [helper(tmp_path, "x", name=name).removeprefix("--helper=") for name in ("one", "two")]
    environment = {"INSTANCE_MANAGER_GUARD_HELPERS": "\n" + "\n".join(lines) + "\n"}
    async with guarding(tmp_path / "state", *STUB, environment=environment) as guard:
        await guard.logged("helper started", 2)
        assert [line["helper"] for line in guard.events("helper started")] == ["one", "two"]
        await guard.printed("listening")
        assert await guard.stop() == 0


async def test_the_end_of_an_instance_touches_no_helper(tmp_path: Path) -> None:
    """Whatever it has left behind is found and ended, and nothing that a helper has."""
    url, (first, last) = f"unix://{tmp_path}/im.sock", port_span()
    command = ("daemon", "--listen", url, "--logs-dir", f"{tmp_path}/logs", "--port-range", f"{first}-{last}")
    stray = tmp_path / "stray"
    script = (
        f"setsid sh -c 'echo $$ > {stray}.new; mv {stray}.new {stray}; exec sleep 1000' & exec sleep 1000"
    )
    async with helped(tmp_path, "leave", command=command) as (guard, pid):
        await guard.serving()
        await reached((tmp_path / "left").exists)
        async with Client(url) as client, Watch(client) as watch:
            await client.process_create(shell("r1", script))
            await watch.state("r1", "running")
            await reached(stray.exists)
            await client.process_delete("r1")
            await watch.state("r1", "deleted")
        await gone([pid_in(stray)])
        assert lives(pid)
        assert lives(pid_in(tmp_path / "left"))
        assert not [line for line in guard.lines if "cannot tell to which instance" in line["event"]]
        assert await guard.stop() == 0


@pytest.mark.parametrize("on_stop", ["leave", "terminate"])
async def test_helpers_are_left_to_instances_that_are_left_alone(tmp_path: Path, on_stop: str) -> None:
    url = f"unix://{tmp_path}/im.sock"
    first, last = port_span()
    options = ("--listen", url, "--logs-dir", f"{tmp_path}/logs", "--port-range", f"{first}-{last}")
    command = ("daemon", *options, "--on-stop", on_stop)
    async with helped(tmp_path, command=command) as (guard, pid):
        await guard.serving(1)
        async with Client(url) as client, Watch(client) as watch:
            await client.process_create(shell("r1", "exec sleep 1000"))
            await watch.state("r1", "running")
        keeper = keeper_of(guard)
        assert await guard.stop() == 0
        assert lives(pid) == (on_stop == "leave")
        left = marked(guard.marker)
        assert bool(left) == (on_stop == "leave")
        for process in sorted(
            left, key=lambda each: each != keeper
        ):  # the keeper first, or it starts another
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        await gone(left)
