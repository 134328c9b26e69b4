"""A process that nobody owns: found, explained, not hit by a delete that means another, deleted on demand."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Watch, sleeper
from tests.support.orphan_agent import Agent, judged, running_agent
from tests.support.owner_files import replica, write

STALE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def owners(tmp_path: Path) -> Path:
    path = tmp_path / "owners.json"
    write(path, replica("v1-r-1"))
    return path


@pytest.fixture
async def agent(daemon: Daemon, owners: Path, tmp_path: Path) -> AsyncIterator[Agent]:
    async with running_agent(tmp_path, owners, {"im-1": daemon.url}) as running:
        yield running


async def test_a_stray_process_is_recorded_survives_a_stale_delete_and_leaves_with_its_record(
    daemon: Daemon, agent: Agent
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        stray = await client.process_create(sleeper("stray"))
        await agent.logged("orphan", name="stray", uuid=stray.status.uuid)
        record = (await agent.listed())["stray"]
        assert record["parameters"] == {
            "InstanceName": "stray",
            "InstanceUUID": stray.status.uuid,
            "InstanceManager": "im-1",
        }
        assert (record["type"], record["data_engine"]) == ("replica-instance", "v1")
        assert record["conditions"] == {"InstanceExist": True}

        env = {"INSTANCE_MANAGER_URL": daemon.url}
        refused = await agent.orphans("get", record["name"], env=env)
        assert refused.code == 0
        with pytest.raises(Exception, match="NOT_FOUND"):
            await client.process_delete("stray", STALE)
        assert (await client.process_get("stray")).status.state == "running"
        assert set(await agent.listed()) == {"stray"}

        deleted = await agent.orphans("delete", record["name"][:20])
        assert deleted.code == 0, deleted
        await watch.state("stray", "deleted")
        await agent.logged("orphan record ended", name="stray")
        assert await agent.listed() == {}
        (ended,) = (await agent.orphans("list", "--history")).json["history"]
        assert (ended["name"], ended["fate"], ended["deleted_by"]) == (
            record["name"],
            "deleted",
            ended["requested_by"],
        )
        assert ended["conditions"] == {"InstanceExist": False}


async def test_the_record_of_a_process_does_not_delete_the_one_that_has_its_name_now(
    daemon: Daemon, agent: Agent
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        first = await client.process_create(sleeper("stray"))
        await agent.logged("orphan", uuid=first.status.uuid)
        old = (await agent.listed())["stray"]["name"]
        await client.process_delete("stray", first.status.uuid)
        await watch.state("stray", "deleted")
        second = await client.process_create(sleeper("stray"))
        # The agent may or may not have noticed by now; either way the second process is not touched.
        refused = await agent.orphans("delete", old)
        assert refused.code in {3, 8}, refused
        assert (await client.process_get("stray")).status.uuid == second.status.uuid
        await agent.logged("orphan", uuid=second.status.uuid)
        assert (await agent.listed())["stray"]["name"] != old
        assert (await client.process_get("stray")).status.state == "running"


async def test_an_owner_that_comes_back_before_a_person_deletes_saves_the_instance(
    daemon: Daemon, agent: Agent, owners: Path
) -> None:
    async with daemon.client() as client:
        await client.process_create(sleeper("stray"))
        await agent.logged("orphan", name="stray")
        name = (await agent.listed())["stray"]["name"]
        write(owners, replica("v1-r-1"), replica("stray"))
        refused = await agent.orphans("delete", name)
        assert refused.code in {3, 8}, refused
        await agent.logged("orphan record ended", name="stray", fate="owned")
        assert (await client.process_get("stray")).status.state == "running"


async def test_owners_that_cannot_be_read_make_no_orphans_and_stop_every_delete(
    daemon: Daemon, agent: Agent, owners: Path
) -> None:
    async with daemon.client() as client:
        await client.process_create(sleeper("stray"))
        await agent.logged("orphan", name="stray")
        name = (await agent.listed())["stray"]["name"]
        os.truncate(owners, 20)
        await agent.logged("trouble", what="owner source")
        await client.process_create(sleeper("v1-r-1"))
        refused = await agent.orphans("delete", name)
        assert refused.code == 1
        assert "the request is saved" in refused.error
        assert (await client.process_get("stray")).status.state == "running"
        assert agent.declared() == ["stray"]
        # As soon as the owners can be read the wish is carried out.
        write(owners, replica("v1-r-1"))
        await agent.logged("orphan deleted", name="stray")
        await agent.logged("orphan record ended", name="stray", fate="deleted")
        await judged(agent, lambda: client.process_create(sleeper("stray2")), "stray2")
        assert agent.declared() == ["stray", "stray2"]


async def test_a_wrong_name_of_the_instance_manager_is_told_and_never_deletes_everything(
    daemon: Daemon, owners: Path, tmp_path: Path
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("v1-r-1"))
        await watch.state("v1-r-1", "running")
        async with running_agent(tmp_path, owners, {"typo": daemon.url}) as agent:
            told = await agent.logged("trouble", what="name of typo")
            assert "say that they run on im-1" in told["reason"]
            await agent.logged("orphan", name="v1-r-1")
        target = ("--target", f"typo={daemon.url}", "--owners", str(owners), "--auto-delete", "--grace", "0")
        refused = await agent.orphans("run", *target)
        assert refused.code == 1
        assert "cannot delete orphans automatically" in refused.err
        # Under the right name the records of the wrong one are ended, and nothing is found.
        async with running_agent(tmp_path, owners, {"im-1": daemon.url}) as right:
            await right.logged("orphan record ended", name="v1-r-1")
            await judged(right, lambda: client.process_create(sleeper("stray")), "stray")
            assert right.declared() == ["stray"]
        assert (await client.process_get("v1-r-1")).status.state == "running"


async def test_a_wish_that_could_not_be_carried_out_is_carried_out_by_the_next_agent(
    daemon: Daemon, owners: Path, tmp_path: Path
) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        stray = await client.process_create(sleeper("stray"))
        async with running_agent(tmp_path, owners, {"im-1": daemon.url}) as first:
            await first.logged("orphan", name="stray")
            name = (await first.listed())["stray"]["name"]
        os.truncate(owners, 20)
        refused = await first.orphans("delete", name)
        assert refused.code == 1
        assert (await first.listed())["stray"]["requested_by"]
        write(owners, replica("v1-r-1"))
        async with running_agent(tmp_path, owners, {"im-1": daemon.url}) as second:
            await second.logged("orphan deleted", uuid=stray.status.uuid)
            await watch.state("stray", "deleted")
            await second.logged("orphan record ended", name="stray", fate="deleted")
            assert second.declared() == []
