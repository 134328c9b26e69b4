"""Instances of an instance manager without UUIDs are left alone, before, during and after its upgrade."""

import shlex
from pathlib import Path

from tests.support.daemon import Daemon, running_daemon, sleeper
from tests.support.orphan_agent import judged, running_agent
from tests.support.owner_files import replica, write
from tests.support.without_uuid import without_uuids


async def test_an_upgrade_from_an_instance_manager_without_uuids_creates_no_orphan(tmp_path: Path) -> None:
    owners = tmp_path / "owners.json"
    write(owners, replica("v1-r-1"), replica("v2-r-1"))
    url = f"unix://{tmp_path}/public.sock"
    async with running_daemon(tmp_path, "--on-stop", "leave") as before:
        async with before.client() as client:
            for name in ("v1-r-1", "v2-r-1"):
                await client.process_create(sleeper(name))
        async with running_agent(tmp_path, owners, {"im-1": url}, "--resync", "0.5") as agent:
            async with without_uuids(url, before.url):
                told = await agent.logged("trouble", what="identities on im-1")
                assert "2 instances have no identity" in told["reason"]
            await agent.logged("trouble", what="instance manager im-1")
            assert await before.stop() == 0

            after = Daemon(tmp_path, "--listen", url, "--on-stop", "leave")
            after.marker = before.marker
            try:
                await after.start()
                after.url = url
                await agent.logged("trouble is over", what="identities on im-1")
                async with after.client() as client:
                    await judged(agent, lambda: client.process_create(sleeper("stray")), "stray")
                    assert set(await client.process_list()) == {"v1-r-1", "v2-r-1", "stray"}
            finally:
                await after.clean_up()
            assert agent.declared() == ["stray"]


async def test_instances_without_identity_are_seen_and_told_but_never_recorded_or_deleted(
    tmp_path: Path,
) -> None:
    owners = tmp_path / "owners.json"
    write(owners, replica("moved", manager="im-new"))
    url = f"unix://{tmp_path}/old.sock"
    (tmp_path / "new").mkdir()
    async with (
        running_daemon(tmp_path) as behind,
        running_daemon(tmp_path / "new") as new,
        without_uuids(url, behind.url) as old,
        running_agent(
            tmp_path, owners, {"im-old": url, "im-new": new.url}, "--auto-delete", "--grace", "0"
        ) as agent,
        behind.client() as client,
        new.client() as new_client,
    ):
        await client.process_create(sleeper("nobody"))
        await client.process_create(sleeper("moved"))
        await agent.logged("trouble", what="identities on im-old")
        await judged(agent, lambda: new_client.process_create(sleeper("stray")), "stray")
        await agent.logged("orphan deleted", name="stray")
        assert agent.declared() == ["stray"]
        assert old.deletes == []

        everything = await agent.orphans("list", "--all")
        assert everything.code == 0, everything
        moved, left = everything.json["without_identity"]
        assert moved["instance"] == "moved"
        by_hand = f"longhorn-instance-manager --url {url} process delete --name nobody"
        assert (left["instance"], left["instance_manager"]) == ("nobody", "im-old")
        assert left["verdict"] == "no identity, not judged"
        assert left["delete_by_hand"] == by_hand
        table = await agent.orphans("list", "--all", "-o", "table")
        assert "2 without identity" in table.out
        assert by_hand in table.out

        explained = await agent.orphans("explain", "nobody")
        assert explained.code == 0
        assert "verdict: no identity" in explained.out

        # What is shown can be run as it is.
        assert shlex.split(left["delete_by_hand"])[-1] == "nobody"
        assert (await client.process_get("nobody")).status.state == "running"
