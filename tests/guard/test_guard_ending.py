"""A guard that is asked to end while no daemon can end the instances ends them itself, in order."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from instance_manager.client import Client
from instance_manager.platform import contract
from tests.support.daemon import BIN, Watch, marked, port_span, shell
from tests.support.guard import PROGRAM, STUB, Guard, children_of, cpu_ticks, gone, guarding, reached
from tests.support.guard_program import ASKED

ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
INSTANCE = {contract.UUID_VARIABLE: "0f1e2d3c-0000-4000-8000-000000000001"}


@asynccontextmanager
async def dying(
    folder: Path, kind: str, *, on_stop: str = "", before: Sequence[str] = ()
) -> AsyncIterator[tuple[Guard, int]]:
    """Guard a program that leaves an orphan of a kind and then fails for ever; yields its PID too."""
    (folder / "code").write_text("3")
    state = folder / "state"
    async with guarding(
        state,
        "fail",
        str(folder),
        kind,
        options=("--restarts", "1"),
        program=(*before, *PROGRAM),
        environment={"SLOW_DELAY": "1000", **INSTANCE},
    ) as guard:
        await guard.logged("daemon keeps dying")
        if on_stop:
            (state / contract.ON_STOP).write_text(on_stop)
        yield guard, int((folder / "orphan").read_text())


@pytest.mark.parametrize("number", ENDING)
async def test_instances_are_asked_to_end_and_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    async with dying(tmp_path, "obedient") as (guard, orphan):
        assert await guard.stop(number) == 128 + number
        await gone([orphan])
        assert (tmp_path / ASKED).read_text() == "SIGINT"
        assert (await guard.logged("ending instances"))["instances"] == 1
        await guard.logged("instances ended")
        assert set(guard.records().values()) == {"code 5\n"}


async def test_one_that_does_not_listen_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    async with dying(tmp_path, "deaf", on_stop="terminate 0.1\n") as (guard, _):
        assert await guard.stop() == 143
        assert set(guard.records().values()) == {"signal SIGKILL\n"}


async def test_a_second_signal_does_not_wait_for_the_grace_period(tmp_path: Path) -> None:
    async with dying(tmp_path, "deaf", on_stop="terminate 1000\n") as (guard, _):
        guard.send(signal.SIGTERM)
        await guard.logged("ending instances")
        assert await guard.stop() == 143
        assert set(guard.records().values()) == {"signal SIGKILL\n"}


async def test_what_an_instance_leaves_behind_is_killed(tmp_path: Path) -> None:
    async with dying(tmp_path, "parent", on_stop="terminate 1000\n") as (guard, _):
        assert await guard.stop() == 143
        assert sorted(guard.records().values()) == ["code 5\n", "signal SIGKILL\n"]


async def test_instances_that_are_to_be_left_are_not_touched(tmp_path: Path) -> None:
    async with dying(tmp_path, "obedient", on_stop="leave\n") as (guard, orphan):
        assert await guard.stop() == 143
        assert not (tmp_path / ASKED).exists()
        os.kill(orphan, signal.SIGKILL)
        await gone([orphan])


async def test_the_first_process_of_a_container_ends_them_before_the_kernel_does(
    tmp_path: Path, isolated: Sequence[str]
) -> None:
    async with dying(tmp_path, "obedient", before=isolated) as (guard, _):
        (first,) = guard.children()
        os.kill(first, signal.SIGTERM)
        assert await guard.ended() == 143
        assert (tmp_path / ASKED).read_text() == "SIGINT"


async def test_a_daemon_that_dies_of_the_signal_leaves_the_instances_to_the_guard(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("")
    async with guarding(
        tmp_path / "state", "fail", str(tmp_path), "obedient", program=PROGRAM, environment=INSTANCE
    ) as guard:
        await guard.printed("mended")
        assert await guard.stop() == 143
        assert (tmp_path / ASKED).read_text() == "SIGINT"


@pytest.mark.parametrize("on_stop", ["terminate", "leave"])
@pytest.mark.parametrize("ticks", [-1, 0, 4, 8, 12, 16, 20, 24])
async def test_whenever_the_guard_is_signalled_after_a_crash_instances_end_as_settled(
    tmp_path: Path, ticks: int, on_stop: str
) -> None:
    """`ticks` is the CPU time that the next daemon has used, in hundredths of a second; -1 before its start.

    One that needs less until it serves is signalled then.
    """
    url, asked = f"unix://{tmp_path}/im.sock", tmp_path / "asked"
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    first, last = port_span()
    options = ("--listen", url, "--logs-dir", f"{tmp_path}/logs", "--port-range", f"{first}-{last}")
    async with guarding(tmp_path / "state", "daemon", *options, "--on-stop", on_stop) as guard:
        await guard.serving(1)
        script = f"trap 'echo asked >> {asked}; exit 0' INT; echo > {ready}; sleep 1000 & wait"
        async with Client(url) as client, Watch(client) as watch:
            await client.process_create(shell("r1", script))
            await watch.state("r1", "running")
        await asyncio.to_thread(ready.read_text)
        daemon = await guard.started(1)
        (instance,) = children_of(daemon)
        os.kill(daemon, signal.SIGKILL)
        if ticks >= 0:
            second = await guard.started(2)
            await reached(lambda: len(guard.served) > 1 or cpu_ticks(second) >= ticks)
        else:
            await guard.logged("daemon died")
        await guard.stop()
        if on_stop == "leave":
            assert not asked.exists()
            left = marked(guard.marker)
            os.killpg(instance, signal.SIGKILL)
            await gone(left)
        else:
            assert asked.read_text() == "asked\n"


@pytest.mark.parametrize("on_stop", ["terminate", "leave"])
async def test_a_daemon_with_a_state_directory_of_its_own_is_understood(tmp_path: Path, on_stop: str) -> None:
    """Its settings hold when it is dead, and the next one learns how an instance has ended."""
    url, asked = f"unix://{tmp_path}/im.sock", tmp_path / "asked"
    first, last = port_span()
    options = ("--listen", url, "--logs-dir", f"{tmp_path}/logs", "--port-range", f"{first}-{last}")
    own = ("--state-dir", str(tmp_path / "own"), "--on-stop", on_stop)
    async with guarding(tmp_path / "state", "daemon", *options, *own) as guard:
        daemon = await guard.serving(1)
        async with Client(url) as client, Watch(client) as watch:
            await client.process_create(shell("r1", "exec sleep 1000"))
            await watch.state("r1", "running")
            (instance,) = children_of(daemon)
            os.kill(daemon, signal.SIGKILL)
        daemon = await guard.serving(2)
        async with Client(url) as client, Watch(client) as watch:
            os.kill(instance, signal.SIGKILL)
            assert (await watch.state("r1", "error")).status.error_msg == "signal: SIGKILL"
            script = f"trap 'echo asked >> {asked}; exit 0' INT; echo > {tmp_path}/ready; sleep 1000 & wait"
            await client.process_create(shell("r2", script))
            await reached((tmp_path / "ready").exists)
        os.kill(daemon, signal.SIGKILL)
        await guard.logged("daemon died", 2)
        await guard.stop()
        left = marked(guard.marker)
        if on_stop == "leave":
            assert not asked.exists()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            await gone(left)
        else:
            assert asked.read_text() == "asked\n"


async def test_what_a_daemon_of_an_earlier_guard_has_settled_holds_no_more(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / contract.ON_STOP).write_text("leave\n")
    async with dying(tmp_path, "obedient") as (guard, _):
        assert await guard.stop() == 143
        assert (tmp_path / ASKED).read_text() == "SIGINT"


async def test_settings_that_cannot_be_read_are_told_only_where_they_matter(tmp_path: Path) -> None:
    async with dying(tmp_path, "obedient", on_stop="nonsense\n") as (guard, _):
        assert await guard.stop() == 143
        (told,) = guard.events("what is to happen to instances cannot be read; they are ended")
        assert "nonsense" in told["error"]
    (tmp_path / "code").write_text("")
    async with guarding(tmp_path / "state", "fail", str(tmp_path), "obedient", program=PROGRAM) as guard:
        await guard.printed("mended")
        (tmp_path / "state" / contract.ON_STOP).write_text("nonsense\n")
        assert await guard.stop() == 143
        assert guard.events("what is to happen to instances cannot be read; they are ended") == []


async def test_what_does_not_lead_a_session_is_ended_too(tmp_path: Path) -> None:
    """An instance has left it in its own session, and the daemon did not know whose it was."""
    (tmp_path / "code").write_text("")
    async with guarding(
        tmp_path / "state",
        "fail",
        str(tmp_path),
        "obedient",
        program=PROGRAM,
        environment={**INSTANCE, "HELPER": "1"},
    ) as guard:
        await guard.printed("mended")
        os.kill(await guard.started(), signal.SIGKILL)
        await guard.printed("mended", 2)
        orphan = int((tmp_path / "orphan").read_text())
        assert os.getsid(orphan) != orphan
        assert orphan in guard.children()
        assert await guard.stop() == 143
        assert (tmp_path / ASKED).read_text() == "SIGINT"


async def test_what_was_there_before_the_guard_is_not_its_own(tmp_path: Path) -> None:
    """A script has started something, and has then become the guard."""
    before = (
        "/bin/sh",
        "-c",
        f"trap '' INT; sleep 1000 > /dev/null 2>&1 & echo $! > {tmp_path}/before; exec \"$@\"",
        "sh",
    )
    async with guarding(tmp_path / "state", *STUB, program=(*before, str(BIN))) as guard:
        await guard.printed("listening")
        other = int((tmp_path / "before").read_text())
        assert other in guard.children()
        assert await guard.stop() == 0
        assert guard.events("ending instances") == []
        os.kill(other, signal.SIGKILL)
        await gone([other])


async def test_the_time_that_the_daemon_has_spent_counts(tmp_path: Path) -> None:
    """So all ends within the time of a container."""
    url = f"unix://{tmp_path}/im.sock"
    first, last = port_span()
    options = ("--listen", url, "--logs-dir", f"{tmp_path}/logs", "--port-range", f"{first}-{last}")
    async with guarding(tmp_path / "state", "daemon", *options, "--shutdown-grace", "3") as guard:
        daemon = await guard.serving(1)
        async with Client(url) as client:
            await client.process_create(shell("r1", "trap '' INT; echo deaf; while :; do sleep 1000; done"))
            assert await anext(aiter(client.process_log("r1", follow=True))) == "deaf"
        guard.send(signal.SIGTERM)
        await guard.seen(lambda: [line for line in guard.lines if line["event"] == "shutting down"] or None)
        os.kill(daemon, signal.SIGKILL)
        assert await guard.ended() == 128 + signal.SIGKILL
        assert 2 <= (await guard.logged("ending instances"))["grace_seconds"] < 3
