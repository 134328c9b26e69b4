"""`instance-manager process wait`: against a daemon, and against one that does what a test says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from instance_manager.cli import wait as wait_module
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.wait import Goal, Waiter
from instance_manager.client import Client
from tests.support.cli import Result, ok, run
from tests.support.daemon import Daemon, Watch, shell, sleeper
from tests.support.fake_daemon import FakeDaemon, fake_daemon, process
from tests.support.patience import patience

WITHIN = patience(20.0)


async def wait(daemon: Daemon, name: str, goal: str, *options: str) -> Result:
    return await run("--url", daemon.url, "process", "wait", name, "--for", goal, *options)


# --- against a daemon ---


async def test_it_waits_until_a_process_runs_has_stopped_and_is_deleted(daemon: Daemon) -> None:
    async with daemon.client() as client:
        created = await client.process_create(sleeper("r1"))
        assert (await ok(daemon, "process", "wait", "r1", "--for", "running")).out == "r1 running\n"
        uuid = ("--uuid", created.status.uuid)
        waits = [asyncio.create_task(wait(daemon, "r1", goal, *uuid)) for goal in ("stopped", "deleted")]
        await client.process_delete("r1")
        assert await asyncio.gather(*waits) == [
            # it leaves the list right after it has stopped, so either may be the first that is seen
            Result(0, waits[0].result().out, ""),
            Result(0, "r1 deleted\n", ""),
        ]
        assert waits[0].result().out in {"r1 stopped\n", "r1 deleted\n"}
    for goal in ("stopped", "deleted"):
        assert (await wait(daemon, "r1", goal)).out == "r1 deleted\n"


async def test_it_does_not_wait_for_a_failed_process_to_run_or_to_stop(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("r1", "exit 3"))
        await watch.state("r1", "error")
    for goal in ("running", "stopped"):
        failed = await wait(daemon, "r1", goal)
        assert failed.code == 8
        assert failed.error == f"cannot wait for r1 to be {goal}: it is error (exit status 3)"


async def test_another_uuid_is_another_process_and_one_that_lives_on_is_waited_for_in_vain(
    daemon: Daemon,
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("r1"))
        await watch.state("r1", "running")
    other = ("--uuid", "00000000-0000-0000-0000-000000000000")
    assert (await wait(daemon, "r1", "deleted", *other)).out == "r1 deleted\n"
    for name, *uuid in (["r2"], ["r1", *other]):
        failed = await wait(daemon, name, "running", *uuid)
        assert failed.code == 8
        assert failed.error == f"cannot wait for {name} to be running: no such process is listed"

    # Long enough to be told of it first.
    seconds = f"{patience(0.2):g}"
    late = await wait(daemon, "r1", "deleted", "--timeout", seconds)
    assert late.code == 6
    assert late.error == f"cannot wait any longer for r1 to be deleted: after {seconds} s it is running"


# --- against one that does what a test says ---


@pytest.fixture
async def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDaemon]:
    monkeypatch.setattr(wait_module, "_FIRST_DELAY", 0.01)
    async with fake_daemon(f"unix:{tmp_path}/fake.sock") as running:
        yield running


async def waited(fake: FakeDaemon, goal: Goal, uuid: str = "", within: float = WITHIN) -> str:
    """Wait, and return the state that decided."""
    waiter = Waiter("r1", goal, uuid)
    await waiter.wait(Client(fake.url), within)
    return waiter.seen


def waiting(fake: FakeDaemon, goal: Goal, uuid: str = "") -> asyncio.Task[str]:
    return asyncio.create_task(waited(fake, goal, uuid))


async def test_what_happens_between_the_watch_and_the_question_is_not_lost(fake: FakeDaemon) -> None:
    fake.listed = process("starting")
    fake.before_answering = [process("running")]
    assert await waited(fake, Goal.RUNNING) == "running"
    assert fake.calls == ["watch", "get r1"]


async def test_changes_alone_decide(fake: FakeDaemon) -> None:
    fake.listed = process("running")
    task = waiting(fake, Goal.DELETED)
    await fake.asked.acquire()
    fake.tell(process("error"), process("stopping"), process("stopped"), process("deleted"))
    assert await task == "deleted"
    assert fake.calls == ["watch", "get r1"]


async def test_a_daemon_that_takes_a_watch_without_a_word_is_asked_all_the_same(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_module, "BEGUN_SECONDS", 0.1)
    fake.like_go = True
    fake.listed = process("starting")
    task = waiting(fake, Goal.RUNNING)
    await fake.asked.acquire()
    fake.tell(process("running"))
    assert await task == "running"


async def test_changes_of_others_decide_nothing(fake: FakeDaemon) -> None:
    fake.listed = process("running")
    task = waiting(fake, Goal.STOPPED)
    await fake.asked.acquire()
    fake.tell(
        process("stopped", name="r2"), process("stopped", uuid="u0"), process("error", error_msg="mine")
    )
    with pytest.raises(Failure, match=r"it is error \(mine\)"):
        await task


async def test_one_that_is_being_stopped_will_not_run(fake: FakeDaemon) -> None:
    fake.listed = process("starting")
    task = waiting(fake, Goal.RUNNING)
    await fake.asked.acquire()
    fake.tell(process("stopping", error_msg="because"))
    with pytest.raises(Failure, match=r"^cannot wait for r1 to be running: it is stopping \(because\)$") as e:
        await task
    assert e.value.code is ExitCode.IMPOSSIBLE


async def test_a_name_runs_when_the_process_that_replaced_the_first_one_runs(fake: FakeDaemon) -> None:
    fake.listed = process("starting", "old")
    by_name, by_uuid = waiting(fake, Goal.RUNNING), waiting(fake, Goal.RUNNING, "old")
    for _ in range(2):
        await fake.asked.acquire()
    fake.listed = process("running", "new")
    fake.tell(process("stopping", "old"))
    assert await by_name == "running"
    with pytest.raises(Failure, match="it is stopping"):
        await by_uuid


async def test_a_process_is_no_longer_listed_when_another_one_has_its_name(fake: FakeDaemon) -> None:
    fake.listed = process("running", "old")
    waits = [waiting(fake, goal, "old") for goal in (Goal.STOPPED, Goal.DELETED)]
    for _ in waits:
        await fake.asked.acquire()
    fake.listed = process("running", "new")
    fake.tell(process("running", "new"))
    assert await asyncio.gather(*waits) == ["deleted", "deleted"]


@pytest.mark.parametrize(
    "how",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        None,
    ],
)
async def test_it_watches_again_when_the_stream_breaks(fake: FakeDaemon, how: grpc.StatusCode | None) -> None:
    fake.listed = process("starting")
    task = waiting(fake, Goal.RUNNING)
    for _ in range(2):
        await fake.asked.acquire()
        fake.tell(how)
    await fake.asked.acquire()
    fake.tell(process("running"))
    assert await task == "running"
    assert fake.calls == ["watch", "get r1"] * 3


async def test_it_connects_again_when_the_daemon_comes_back(fake: FakeDaemon) -> None:
    fake.listed = process("starting")
    task = waiting(fake, Goal.RUNNING)
    await fake.asked.acquire()
    await fake.stop()
    fake.listed = process("running")
    await fake.start()
    assert await task == "running"


async def test_one_that_was_deleted_while_it_was_not_connected_is_deleted(fake: FakeDaemon) -> None:
    fake.listed = process("running", "old")
    task = waiting(fake, Goal.DELETED)
    await fake.asked.acquire()
    fake.listed = process("running", "new")
    fake.tell(grpc.StatusCode.UNAVAILABLE)
    assert await task == "deleted"


async def test_a_daemon_that_stays_away_uses_up_the_time(fake: FakeDaemon) -> None:
    fake.listed = process("running")
    task = asyncio.create_task(waited(fake, Goal.DELETED, within=3))
    await fake.asked.acquire()
    await fake.stop()
    with pytest.raises(Failure, match="after 3 s it is running") as error:
        await task
    assert error.value.code is ExitCode.TIMEOUT


async def test_other_errors_end_it_at_once(fake: FakeDaemon) -> None:
    fake.listed = process("running")
    task = waiting(fake, Goal.DELETED)
    await fake.asked.acquire()
    fake.tell(grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
        await task
