"""Times are in UTC and say so, wherever the daemon and its people live; --local shows them as people live."""

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from instance_manager.cli.units import moment
from tests.support.cli import ok, on_terminal
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper

FAR = "Pacific/Kiritimati"
"""Fourteen hours ahead."""
UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
LOCAL = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+14:00"


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", FAR)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_a_moment_says_where_it_is_so_late() -> None:
    assert moment(1_000_000_000.5) == "2001-09-09T01:46:40.500Z"
    assert moment(1_000_000_000.5, local=True) == "2001-09-09T15:46:40.500+14:00"


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, environment={"TZ": FAR}) as daemon:
        yield daemon


@pytest.mark.parametrize(("options", "form"), [((), UTC), (("--local",), LOCAL)])
async def test_tables_of_changes(far: Daemon, options: tuple[str, ...], form: str) -> None:
    async with far.client() as client, Watch(client) as watch:
        watching = on_terminal("--url", far.url, "process", "watch", *options, env={"TZ": FAR})
        async with watching as (_, terminal):
            await terminal.shows("Watching")
            await client.process_create(sleeper("r"))
            await watch.state("r", "running")
            await terminal.shows(rf"{form}  r +\S*running")
    table = (await ok(far, "events", "-o", "wide", *options, env={"TZ": FAR})).out
    first = table.splitlines()[1]
    (found,) = re.findall(form, first)
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(found)) < timedelta(hours=1)


async def test_logs_and_json(far: Daemon) -> None:
    async with far.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("r"))
        await watch.state("r", "running")
    line = await far.logged(lambda line: line["event"] == "process running")
    assert re.fullmatch(r".*T.*\.\d{6}Z", line["timestamp"])
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(line["timestamp"])) < timedelta(hours=1)
    (event, *_) = (await ok(far, "events", "--for", "r", env={"TZ": FAR})).out.splitlines()
    assert json.loads(event)["time"].endswith("Z")
