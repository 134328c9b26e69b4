"""Changes of engines are completed, told of when nobody waits for them any more, and bounded."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from instance_manager.app.engine import Completion, EngineChange, completion
from instance_manager.core.errors import ResourceExhaustedError, UnavailableError, UpstreamError

ADD = EngineChange("ReplicaAdd", "h:1", "vol1-e-0", "replica_address=tcp://h:9")
NAMED = {"method": "ReplicaAdd", "address": "h:1", "name": "vol1-e-0", "subject": "replica_address=tcp://h:9"}


class Work:
    """A change that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> str:
        """Wait for the end."""
        self.begun.set()
        return await self.end


async def begun(
    changes: Completion, which: EngineChange = ADD, **options: Any
) -> tuple[Work, asyncio.Task[str]]:
    work = Work()
    caller = asyncio.create_task(changes.of(work.run(), which, **options))
    await work.begun.wait()
    return work, caller


async def gone(caller: asyncio.Task[str]) -> None:
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()


async def all_ended(changes: Completion) -> None:
    for _ in range(5):  # the end of the work, that of its task, the callbacks
        await asyncio.sleep(0)
    assert not len(changes)


@pytest.mark.parametrize(
    ("end", "level", "event", "reason"),
    [
        (lambda end: end.set_result(""), "info", "completed", None),
        (lambda end: end.set_result("no backup"), "warning", "failed", "no backup"),
        (
            lambda end: end.set_exception(UpstreamError("ABORTED", "no space")),
            "warning",
            "failed",
            "no space",
        ),
        (lambda end: end.set_exception(ZeroDivisionError("odd")), "error", "failed unexpectedly", None),
    ],
    ids=["done", "failed as answered", "failed", "defect"],
)
async def test_the_outcome_of_a_change_is_logged_if_its_caller_has_gone(
    end: Callable[[asyncio.Future[str]], None], level: str, event: str, reason: str | None
) -> None:
    changes = Completion()
    with capture_logs() as logs:
        work, caller = await begun(changes, failure=lambda text: text)
        await gone(caller)
        assert (len(changes), logs) == (1, [])
        end(work.end)
        await all_ended(changes)
    (line,) = logs
    assert (line["log_level"], line.get("reason")) == (level, reason)
    assert line["event"] == f"change of an engine {event} after its caller had gone"
    assert NAMED.items() <= line.items()


async def test_so_it_is_if_the_caller_goes_in_the_moment_of_the_end() -> None:
    changes = Completion()
    with capture_logs() as logs:
        work, caller = await begun(changes)
        work.end.set_exception(UpstreamError("ABORTED", "no space"))
        await gone(caller)
        await all_ended(changes)
    assert [line["reason"] for line in logs] == ["no space"]


async def test_what_its_caller_hears_is_not_logged() -> None:
    changes = Completion()
    with capture_logs() as logs:
        work, caller = await begun(changes)
        work.end.set_result("done")
        assert await caller == "done"
        work, caller = await begun(changes)
        work.end.set_exception(UpstreamError("ABORTED", "no space"))
        with pytest.raises(UpstreamError, match="no space"):
            await caller
        await all_ended(changes)
    assert logs == []


async def test_an_engine_that_hangs_keeps_no_other_from_being_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(completion, "MOST_OF_ENGINE", 2)
    changes = Completion()
    first, second = await begun(changes), await begun(changes)
    with pytest.raises(
        ResourceExhaustedError, match="cannot begin ReplicaAdd: 2 changes of the engine vol1-e-0"
    ):
        await begun_or_refused(changes, ADD)
    other, _ = await begun(changes, EngineChange("ReplicaAdd", "h:2", "vol2-e-0"))
    for _ in range(3):
        await begun(changes, EngineChange("CleanupBackupMountPoints"))
    first[0].end.set_result("")
    await first[1]
    third, caller = await begun(changes)
    for work in (second[0], other, third):
        work.end.set_result("")
    assert await caller == ""
    await changes.close()


async def begun_or_refused(changes: Completion, which: EngineChange) -> None:
    await changes.of(Work().run(), which)


async def test_no_change_is_begun_once_the_daemon_ends_but_those_in_progress_go_on() -> None:
    changes = Completion()
    work, caller = await begun(changes)
    changes.drain()
    with pytest.raises(UnavailableError, match="cannot begin SnapshotPurge: the daemon is shutting down"):
        await begun_or_refused(changes, EngineChange("SnapshotPurge"))
    work.end.set_result("done")
    assert await caller == "done"


async def test_each_change_that_is_cut_off_is_logged_and_its_caller_hears_of_it() -> None:
    changes = Completion()
    with capture_logs() as logs:
        _, waiting = await begun(changes)
        _, left = await begun(changes, EngineChange("SnapshotPurge", "h:2"))
        await gone(left)
        await changes.close()
        with pytest.raises(
            UnavailableError, match="ReplicaAdd was not completed: the daemon is shutting down"
        ):
            await waiting
    first, second = logs
    assert {first["event"], second["event"]} == {"change of an engine cut off by the end of the daemon"}
    assert NAMED.items() <= first.items()
    assert (second["method"], second["address"]) == ("SnapshotPurge", "h:2")
    assert {line["log_level"] for line in logs} == {"warning"}
    assert not len(changes)
