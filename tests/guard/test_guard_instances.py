"""While instances live the guard does not end of itself: they would end with it."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.guard import PROGRAM, Guard, children_of, gone, guarding

INSTANCE: dict[str, str] = {}
"""An orphan that leads a session, as every instance does; its environment says nothing."""
HELPER = {"HELPER": "1"}
"""One that leads none is at most what an instance has left behind."""


@asynccontextmanager
async def failing(
    folder: Path,
    code: int,
    identity: dict[str, str],
    *,
    slow: float = 0.01,
    before: Sequence[str] = (),
) -> AsyncIterator[Guard]:
    """Guard a program that leaves an orphan and then fails with a code; it may be restarted twice."""
    (folder / "code").write_text(str(code))
    async with guarding(
        folder / "state",
        "fail",
        str(folder),
        options=("--restarts", "2"),
        program=(*before, *PROGRAM),
        environment={"SLOW_DELAY": str(slow)} | identity,
    ) as guard:
        yield guard


async def test_with_all_restarts_used_up_it_tries_on_slowly_until_no_instance_lives(tmp_path: Path) -> None:
    async with failing(tmp_path, 3, INSTANCE) as guard:
        told = (await guard.logged("daemon keeps dying"))["error"]
        assert "died with code 3 after 2 restarts within 5 minutes" in told
        assert "its own last lines above say why" in told
        assert "Instances alive: 1." in told
        assert "every 0.01 seconds" in told
        await guard.started(8)
        assert len(guard.events("daemon keeps dying")) == 1
        delays = [line["in_seconds"] for line in guard.events("daemon will be started again")]
        assert delays[:7] == [0.001, 0.001] + [0.01] * 5
        assert guard.process.returncode is None
        os.kill(int((tmp_path / "orphan").read_text()), signal.SIGKILL)
        assert await guard.ended() == 3
        assert "No instance lives any more" in (await guard.logged("gave up"))["error"]


async def test_what_is_mended_while_it_tries_on_runs_again(tmp_path: Path) -> None:
    async with failing(tmp_path, 3, INSTANCE) as guard:
        await guard.logged("daemon keeps dying")
        (tmp_path / "code").write_text("")
        await guard.printed("mended")
        os.kill(int((tmp_path / "orphan").read_text()), signal.SIGKILL)
        assert await guard.stop() == 143


@pytest.mark.parametrize("code", [0, 2])
async def test_an_end_that_would_be_final_is_not_while_an_instance_lives(tmp_path: Path, code: int) -> None:
    async with failing(tmp_path, code, INSTANCE) as guard:
        assert (await guard.logged("daemon died"))["status"] == f"code {code}"
        await guard.logged("daemon keeps dying")
        os.kill(int((tmp_path / "orphan").read_text()), signal.SIGKILL)
        assert await guard.ended() == code


async def test_an_orphan_that_leads_no_session_is_no_reason_to_go_on(tmp_path: Path) -> None:
    async with failing(tmp_path, 3, HELPER) as guard:
        assert await guard.ended() == 3
        assert guard.events("daemon keeps dying") == []
        orphan = int((tmp_path / "orphan").read_text())
        os.kill(orphan, signal.SIGKILL)
        await gone([orphan])


async def test_asked_to_end_while_it_tries_on_it_does_not_start_the_daemon_again(tmp_path: Path) -> None:
    async with failing(tmp_path, 3, INSTANCE, slow=1000) as guard:
        await guard.logged("daemon keeps dying")
        assert await guard.stop() == 143
        assert len(guard.events("daemon started")) == 3


async def test_as_the_first_process_of_a_container_it_keeps_the_container_for_its_instances(
    tmp_path: Path, isolated: Sequence[str]
) -> None:
    async with failing(tmp_path, 3, INSTANCE, before=isolated) as guard:
        await guard.started(6)
        (first,) = guard.children()
        (tmp_path / "code").write_text("")
        await guard.printed("mended")
        assert len(children_of(first)) == 2
        os.kill(first, signal.SIGTERM)
        assert await guard.ended() == 143
