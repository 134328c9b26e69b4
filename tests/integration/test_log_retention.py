"""A real daemon removes the logs of instances that are gone, and never that of one that is there."""

from pathlib import Path

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Daemon, Watch, running_daemon, shell
from tests.support.processes import eventually


def ending(name: str, code: int) -> pb.ProcessSpec:
    return shell(name, f"echo {name}; exit {code}")


async def come_and_gone(client: Client, watch: Watch, name: str, code: int) -> None:
    await client.process_create(ending(name, code))
    await watch.state(name, "error" if code else "stopped")
    await client.process_delete(name)
    await watch.state(name, "deleted")


async def test_what_is_gone_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--log-keep-size", "1", "--stop-timeout", "2") as daemon:
        async with daemon.client() as client, Watch(client) as watch:
            await client.process_create(shell("living", "echo living; exec sleep 1000"))
            await watch.state("living", "running")
            await come_and_gone(client, watch, "gone", 0)
        await eventually(lambda: not (daemon.logs / "gone.log").exists())
        assert (daemon.logs / "living.log").read_text() == "living\n"
        line = await daemon.logged(lambda line: line["event"] == "old logs removed")
        assert line["count"] == 1
        _, page = await daemon.http("/metrics")
        assert "instance_manager_log_files_removed_total 1.0" in page
        assert "instance_manager_log_files 1.0" in page


async def test_the_next_daemon_knows_which_instances_failed_and_which_logs_are_written(
    tmp_path: Path,
) -> None:
    first = Daemon(tmp_path)
    following = Daemon(tmp_path, "--log-keep-size", "4Ki", "--stop-timeout", "2")
    following.marker = first.marker
    try:
        await first.start()
        async with first.client() as client, Watch(client) as watch:
            await client.process_create(shell("living", "echo living; exec sleep 1000"))
            await watch.state("living", "running")
            await come_and_gone(client, watch, "failed", 1)
            await come_and_gone(client, watch, "fine", 0)
            await client.process_create(ending("listed", 0))
            await watch.state("listed", "stopped")
        first.process.kill()
        await first.ended()
        await following.start()
        await following.logged(lambda line: line["event"] == "old logs removed")
        assert {path.name for path in following.logs.iterdir()} == {"failed.log", "listed.log", "living.log"}
    finally:
        left = await following.clean_up()
    assert left == []
