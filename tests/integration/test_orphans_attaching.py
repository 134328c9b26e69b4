"""Volumes that are attached and detached: each time other UUIDs, and never an orphan."""

from pathlib import Path
from typing import Any

from instance_manager.client import Client
from tests.support.daemon import Watch, running_daemon, sleeper, unique
from tests.support.orphan_agent import judged, running_agent
from tests.support.owner_files import replica, write

TIMES = 6


class Volumes:
    """What a controller does: it writes an owner first, and removes it last."""

    def __init__(self, owners: Path, client: Client, watch: Watch) -> None:
        self._path = owners
        self._client = client
        self._watch = watch
        self._owners: dict[str, dict[str, Any]] = {
            "idle": replica("idle", desired="stopped", current="stopped")
        }
        self.uuids: list[str] = []
        self._write()

    def _write(self) -> None:
        write(self._path, *self._owners.values())

    def _set(self, name: str, **fields: Any) -> None:
        self._owners[name] = replica(name, **fields)
        self._write()

    async def attach(self, name: str) -> None:
        self._set(name, desired="running", current="stopped", manager="")
        created = await self._client.process_create(sleeper(name))
        self.uuids.append(created.status.uuid)
        self._set(name, desired="running", current="starting")
        await self._watch.state(name, "running")
        self._set(name)

    async def detach(self, name: str, *, remove: bool) -> None:
        self._set(name, desired="stopped")
        seen = len(self._watch.seen)
        await self._client.process_delete(name, self.uuids[-1])
        await self._watch.until(lambda all_: any(each.deleted for each in all_[seen:]))
        self._set(name, desired="stopped", current="stopped", manager="")
        if remove:
            del self._owners[name]
            self._write()


async def test_attaching_and_detaching_changes_the_uuid_and_leaves_no_orphan(tmp_path: Path) -> None:
    owners = tmp_path / "owners.json"
    async with running_daemon(tmp_path) as daemon, daemon.client() as client, Watch(client) as watch:
        volumes = Volumes(owners, client, watch)
        targets = {"im-1": daemon.url}
        async with running_agent(
            tmp_path, owners, targets, "--wait-interval", "0", "--resync", "0.1"
        ) as agent:
            for turn in range(TIMES):
                await volumes.attach("v1-r-1")
                await volumes.detach("v1-r-1", remove=turn % 2 == 0)
            assert unique(volumes.uuids)
            await judged(agent, lambda: client.process_create(sleeper("stray")), "stray")
            assert agent.declared() == ["stray"]
            assert set(await agent.listed()) == {"stray"}


async def test_an_instance_left_behind_by_a_detached_volume_is_an_orphan_until_it_is_attached_again(
    tmp_path: Path,
) -> None:
    owners = tmp_path / "owners.json"
    write(owners, replica("v1-r-1"))
    async with (
        running_daemon(tmp_path) as daemon,
        daemon.client() as client,
        running_agent(tmp_path, owners, {"im-1": daemon.url}) as agent,
    ):
        await client.process_create(sleeper("v1-r-1"))
        write(owners, replica("v1-r-1", desired="stopped", current="stopped"))
        told = await agent.logged("orphan", name="v1-r-1")
        assert told["reason"] == "its owner is stopped: no instance is expected anywhere"
        write(owners, replica("v1-r-1"))
        await agent.logged("orphan record ended", name="v1-r-1", fate="owned")
        assert await agent.listed() == {}
        assert (await client.process_get("v1-r-1")).status.state == "running"
