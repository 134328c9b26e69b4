"""`instance-manager orphans` on records that are there already, its output in pipes and on a terminal."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from instance_manager.core.instance import DataEngine
from instance_manager.orphans.model import ObservedInstance, Orphan, Resolution
from instance_manager.orphans.records import AgentInfo, SqliteRecords
from tests.support.cli import ESCAPES, Result, executed, on_terminal, run
from tests.support.daemon import Daemon, Watch, refusal, sleeper
from tests.support.owner_files import replica, write
from tests.support.patience import patience

NOWHERE = "unix:///nonexistent/im.sock"

ME = "ann"


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the tests need not have a name."""
    monkeypatch.setenv("LOGNAME", ME)


def orphan(name: str, uuid: str = "u1", engine: DataEngine = "v1") -> Orphan:
    return Orphan(
        ObservedInstance(name, uuid, "replica", "running", engine), "im-1", 1_000.0, "nobody owns it"
    )


class Folder:
    """Records, owners and what an agent has left behind."""

    def __init__(self, path: Path) -> None:
        self.records = path / "orphans.db"
        self.owners = path / "owners.json"
        write(self.owners, replica("other"))
        self.agent = SqliteRecords(self.records, agent=True)
        self.agent.open()

    def spoil_owners(self) -> None:
        self.owners.write_text("{")

    async def orphans(self, *args: str) -> Result:
        return await run("orphans", *args, "--records", str(self.records))

    async def looks_at(self, **targets: str) -> None:
        """Let the agent have looked at these instance managers, by their names with _ for -."""
        named = {name.replace("_", "-"): url for name, url in targets.items()}
        await self.agent.set_agent_info(AgentInfo(str(self.owners), named, 1.0, 1))


def contents(path: Path) -> list[Path]:
    return list(path.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.agent.close()


# --- list and get ---


async def test_without_orphans_a_list_is_an_empty_object(folder: Folder) -> None:
    assert await folder.orphans("list") == Result(0, "{}\n", "")
    assert (await folder.orphans("ls", "-o", "name")).out == ""
    assert (await folder.orphans("list", "--history")).json == {"history": []}


async def test_a_list_says_why_orphans_may_be_missing(folder: Folder) -> None:
    await folder.agent.report_conditions({"orphan limit": "30 suspected orphans are too many"})
    listed = await folder.orphans("list")
    assert (listed.code, listed.out) == (0, "{}\n")
    assert listed.err == "The agent reports: orphan limit: 30 suspected orphans are too many\n"
    assert (await folder.orphans("list", "--history")).err == ""
    await folder.agent.report_conditions({})
    assert (await folder.orphans("list")).err == ""


async def test_a_record_has_the_same_fields_in_every_form_of_data(folder: Folder) -> None:
    record = orphan("r1")
    await folder.agent.create(record)
    listed = (await folder.orphans("list")).json
    assert list(listed) == [record.name]
    assert listed[record.name] == {
        "name": record.name,
        "type": "replica-instance",
        "data_engine": "v1",
        "parameters": {"InstanceName": "r1", "InstanceUUID": "u1", "InstanceManager": "im-1"},
        "conditions": {"InstanceExist": True},
        "created": "1970-01-01T00:16:40.000Z",
        "reason": "nobody owns it",
        "fate": "open",
        "ended": None,
        "outcome": "",
        "requested_by": "",
        "requested_at": None,
        "deleted_by": "",
        "attempts": 0,
        "trouble": "",
    }
    assert (await folder.orphans("get", record.name)).json == listed[record.name]
    assert yaml.safe_load((await folder.orphans("list", "-o", "yaml")).out) == listed
    assert (await folder.orphans("list", "-o", "name")).out == f"{record.name}\n"


async def test_a_table_shows_the_beginning_of_a_name_and_every_command_understands_it(folder: Folder) -> None:
    for name in ("r1", "r2"):
        await folder.agent.create(orphan(name))
    head, *rows = (await folder.orphans("list", "-o", "table")).out.splitlines()
    assert head.split() == ["NAME", "INSTANCE", "TYPE", "MANAGER", "AGE", "DELETION", "UUID"]
    shown = {row.split()[1]: row.split()[0] for row in rows}
    for name in ("r1", "r2"):
        assert orphan(name).name.startswith(shown[name])
        assert (await folder.orphans("get", shown[name], "-o", "name")).out == f"{orphan(name).name}\n"


async def test_a_wide_table_has_the_whole_name_and_the_reason(folder: Folder) -> None:
    await folder.agent.create(orphan("r1"))
    head, row = (await folder.orphans("list", "-o", "wide")).out.splitlines()
    assert head.split()[-3:] == ["ENGINE", "REASON", "TROUBLE"]
    assert row.startswith(orphan("r1").name)
    assert "nobody owns it" in row


async def test_a_terminal_gets_a_table_on_which_nothing_is_cut_off(folder: Folder) -> None:
    await folder.agent.create(orphan("a-volume-with-a-rather-long-name-r-1"))
    args = ("orphans", "list", "--records", str(folder.records))
    async with on_terminal(*args, columns=60) as (process, terminal):
        async with asyncio.timeout(patience(30)):
            assert await process.wait() == 0
    assert "a-volume-with-a-rather-long-name-r-1" in ESCAPES.sub("", terminal.text).replace("\n", "")


async def test_the_history_tells_what_became_of_each_record(folder: Folder) -> None:
    for at, resolution in enumerate((Resolution.GONE, Resolution.DELETED)):
        await folder.agent.create(orphan("r1"))
        await folder.agent.remove(orphan("r1").close(resolution, 2_000.0 + at, f"it is {resolution}"))
    history = (await folder.orphans("list", "--history")).json["history"]
    assert [(each["fate"], each["outcome"]) for each in history] == [
        ("gone", "it is gone"),
        ("deleted", "it is deleted"),
    ]
    table = (await folder.orphans("list", "--history", "-o", "table")).out
    assert table.splitlines()[0].split() == [
        "NAME",
        "INSTANCE",
        "TYPE",
        "MANAGER",
        "FATE",
        "ENDED",
        "OUTCOME",
    ]
    refused = await folder.orphans("get", orphan("r1").name)
    assert refused.code == 3
    assert "its record is closed: it is deleted" in refused.error


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ("orphan-00000000", 3, "`orphans list` shows"),
        ("r1", 3, "an orphan's name begins with orphan-"),
        ("orphan-", 3, "cannot find the orphan"),
        ("", 3, "cannot find the orphan"),
    ],
)
async def test_an_orphan_that_is_not_there_is_not_found(
    folder: Folder, given: str, code: int, message: str
) -> None:
    await folder.agent.create(orphan("r1"))
    for command in ("get", "delete"):
        refused = await folder.orphans(command, given)
        assert refused.code == code
        assert message in refused.error


async def test_a_beginning_that_several_orphans_have_is_refused(folder: Folder) -> None:
    names = [f"r{number}" for number in range(40)]
    for name in names:
        await folder.agent.create(orphan(name))
    twice = next(
        first
        for first in (orphan(name).name[:8] for name in names)
        if sum(orphan(name).name.startswith(first) for name in names) > 1
    )
    refused = await folder.orphans("get", twice)
    assert refused.code == 2
    assert f"cannot use {twice}: more than one orphan has a name that begins with it: o" in refused.error


async def test_records_that_are_not_there_are_a_clear_error(tmp_path: Path) -> None:
    for command in (["list"], ["get", "orphan-1"], ["delete", "orphan-1"]):
        refused = await run("orphans", *command, "--records", str(tmp_path / "none.db"))
        assert refused.code == 1
        assert "start the agent with `orphans run`, or point --records at its file" in refused.error
    bad = Path(__file__)
    refused = await run("orphans", "list", "--records", str(bad))
    assert refused.code == 1
    assert "cannot use the records" in refused.error


async def test_the_records_can_come_from_the_environment(folder: Folder) -> None:
    await folder.agent.create(orphan("r1"))
    env = {"INSTANCE_MANAGER_ORPHANS_RECORDS": str(folder.records)}
    assert (await run("orphans", "list", "-o", "name", env=env)).out == f"{orphan('r1').name}\n"


async def test_a_list_of_all_tells_which_instance_manager_did_not_answer(folder: Folder) -> None:
    await folder.agent.create(orphan("r1"))
    await folder.looks_at(im_1=NOWHERE)
    result = await folder.orphans("list", "--all")
    assert result.code == 5
    assert "cannot read instance manager im-1" in result.error
    assert list(result.json["orphans"]) == [orphan("r1").name]
    refused = await folder.orphans("list", "--all", "--history")
    assert refused.code == 2


# --- explain ---


async def test_a_verdict_is_explained_read_by_read(daemon: Daemon, folder: Folder) -> None:
    await folder.looks_at(im_1=daemon.url)
    write(folder.owners, replica("owned"))
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("owned"))
        stray = (await client.process_create(sleeper("stray"))).status.uuid
        await watch.state("owned", "running")
        await watch.state("stray", "running")
    told = await folder.orphans("explain", "stray")
    assert told.code == 0
    assert [line.strip() for line in told.out.splitlines()] == [
        "stray on im-1",
        f"1. the instance manager: running, type replica, UUID {stray}",
        "2. the owners, for this name: there is no owner of this name",
        "3. the owners, for all names: 1 owner, none of this name",
        f"4. the instance manager: running, type replica, UUID {stray}",
        "verdict: orphan: the instance has no owner",
        "record: no record",
    ]
    (explanation,) = (await folder.orphans("explain", "owned", "-o", "json")).json["findings"]
    assert (explanation["verdict"], explanation["reason"]) == ("owned", "its owner runs here")
    assert [read["of"] for read in explanation["reads"]] == ["instance", "owner"]
    assert (await folder.orphans("explain", "nobody")).code == 3


async def test_what_cannot_be_read_is_no_verdict(daemon: Daemon, folder: Folder) -> None:
    await folder.looks_at(im_1=daemon.url)
    folder.spoil_owners()
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("stray"))
        await watch.state("stray", "running")
    told = await folder.orphans("explain", "stray")
    assert told.code == 1
    assert "verdict: unknown: the owner could not be read: cannot understand" in told.out
    assert "cannot judge stray" in told.error


async def test_an_instance_manager_that_is_away_is_part_of_the_explanation(folder: Folder) -> None:
    await folder.looks_at(im_1=NOWHERE)
    told = await folder.orphans("explain", "r1")
    assert told.code == 5
    assert "1. the instance manager: no answer: cannot read instance manager im-1" in told.out
    assert "cannot judge r1: cannot read instance manager im-1" in told.error


async def test_a_person_without_a_name_is_told_by_number(folder: Folder) -> None:
    await folder.looks_at(im_1=NOWHERE)
    await folder.agent.create(orphan("r1"))
    command = ("orphans", "delete", orphan("r1").name, "--records", str(folder.records))
    nobody = "import pwd; pwd.getpwuid = {}.__getitem__; from instance_manager.cli import main; main()"
    env = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "")
    refused = await executed(sys.executable, "-c", nobody, *command, env=env)
    assert refused.code == 5
    assert [record.requested_by for record in await folder.agent.list()] == [f"user {os.getuid()}"]


async def test_where_to_look_is_said_by_options_if_no_agent_has(daemon: Daemon, folder: Folder) -> None:
    refused = await folder.orphans("explain", "r1")
    assert refused.code == 2
    assert "no agent has used the records: give --owners FILE" in refused.err
    options = ("--owners", str(folder.owners), "--target", f"im-7={daemon.url}")
    assert (await folder.orphans("explain", "r1", *options)).code == 3
    # Records that cannot be read are no error of the command line.
    unread = await run("orphans", "explain", "r1", "--records", "/nonexistent")
    assert unread.code == 1
    assert "or give --owners FILE" in unread.error
    # Without any records too.
    assert (await run("orphans", "explain", "r1", *options, "--records", "/nonexistent")).code == 3


# --- delete ---


async def test_a_dry_run_tells_what_would_be_done_and_does_nothing(daemon: Daemon, folder: Folder) -> None:
    await folder.looks_at(im_1=daemon.url)
    async with daemon.client() as client, Watch(client) as watch:
        uuid = (await client.process_create(sleeper("stray"))).status.uuid
        await watch.state("stray", "running")
        await folder.agent.create(orphan("stray", uuid))
        told = await folder.orphans("delete", orphan("stray", uuid).name, "--dry-run")
        assert told.code == 0
        assert f"would be deleted: stray, UUID {uuid}" in told.out
        write(folder.owners, replica("stray"))
        told = await folder.orphans("delete", orphan("stray", uuid).name, "--dry-run")
        assert "would not be deleted" in told.out
        assert (await client.process_get("stray")).status.state == "running"
    assert [record.requested_by for record in await folder.agent.list()] == [""]


async def test_a_delete_shows_the_record_with_who_has_deleted_it(daemon: Daemon, folder: Folder) -> None:
    await folder.looks_at(im_1=daemon.url)
    async with daemon.client() as client, Watch(client) as watch:
        uuid = (await client.process_create(sleeper("stray"))).status.uuid
        await watch.state("stray", "running")
    record = orphan("stray", uuid)
    await folder.agent.create(record)
    done = (await folder.orphans("delete", record.name, "-o", "json")).json
    assert (done["name"], done["fate"], done["deleted_by"]) == (record.name, "open", ME)


async def test_another_process_of_the_name_is_not_deleted_and_the_record_ends(
    daemon: Daemon, folder: Folder
) -> None:
    await folder.looks_at(im_1=daemon.url)
    await folder.agent.create(orphan("stray", "another"))
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("stray"))
        await watch.state("stray", "running")
        refused = await folder.orphans("delete", orphan("stray", "another").name)
        assert refused.code == 8
        assert "the name belongs to an instance with UUID" in refused.error
        assert (await client.process_get("stray")).status.state == "running"
    assert await folder.agent.list() == []


async def test_an_instance_manager_that_does_not_answer_keeps_the_request(folder: Folder) -> None:
    await folder.looks_at(im_1=NOWHERE)
    await folder.agent.create(orphan("stray"))
    refused = await folder.orphans("delete", orphan("stray").name)
    assert refused.code == 5
    assert "the request is saved; the agent will retry" in refused.error
    (record,) = await folder.agent.list()
    assert record.requested_by == ME


async def test_without_an_agent_nobody_promises_that_it_tries_again(folder: Folder) -> None:
    await folder.looks_at(im_1=NOWHERE)
    await folder.agent.create(orphan("stray"))
    await folder.agent.report_check(time.time() - 7200)
    for arguments in (("list",), ("get", orphan("stray").name)):
        assert (await folder.orphans(*arguments)).err == ""
    folder.agent.close()
    told = "no agent runs on these records, so they are not up to date: the last check of everything was 2h"
    for arguments in (("list",), ("get", orphan("stray").name)):
        shown = await folder.orphans(*arguments)
        assert shown.code == 0
        assert shown.err.startswith(f"Warning: {told}")
        assert orphan("stray").name in shown.out
    assert (await folder.orphans("list", "--history")).err == ""
    refused = await folder.orphans("delete", orphan("stray").name)
    assert refused.code == 5
    assert f"the request is saved; nobody retries: {told}" in refused.error


async def test_an_agent_that_has_never_looked_at_everything_is_told_as_such(folder: Folder) -> None:
    folder.agent.close()
    assert "the last check of everything was never" in (await folder.orphans("list")).err


async def test_an_orphan_on_an_instance_manager_that_is_not_known_is_refused(folder: Folder) -> None:
    await folder.looks_at(im_2=NOWHERE)
    await folder.agent.create(orphan("stray"))
    refused = await folder.orphans("delete", orphan("stray").name)
    assert refused.code == 2
    assert "give --target im-1=URL" in refused.err


# --- run ---


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["tcp://localhost:1"], "write NAME=URL"),
        (["=tcp://localhost:1"], "write NAME=URL"),
        (["im-1="], "write NAME=URL"),
        (["im-1=nonsense"], "cannot use the URL"),
        (["im-1=tcp://a:1", "im-1=tcp://b:1"], "cannot look at im-1 twice"),
        (["im-1=tcp://a:1", "im-2=tcp://a:1"], "cannot look at tcp://a:1 twice"),
        ([], "Missing option '--target'"),
    ],
)
async def test_targets_that_make_no_sense_are_refused_before_anything_is_done(
    tmp_path: Path, targets: list[str], message: str
) -> None:
    given = [word for target in targets for word in ("--target", target)]
    files = ("--owners", str(tmp_path / "owners.json"), "--records", str(tmp_path / "orphans.db"))
    refused = await run("orphans", "run", *given, *files)
    assert refused.code == 2
    assert message in refused.err
    assert contents(tmp_path) == []


async def test_a_second_agent_on_the_same_records_is_refused(folder: Folder) -> None:
    refused = await folder.orphans("run", "--target", f"a={NOWHERE}", "--owners", str(folder.owners))
    assert refused.code == 1
    assert "another agent does" in refusal(refused.err)
