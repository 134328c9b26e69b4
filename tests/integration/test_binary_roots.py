"""The daemon starts only what lies below its binary roots, whatever method asks for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.pb.imrpc import instance_pb2
from tests.support.daemon import Daemon, Watch, running_daemon


@pytest.fixture
async def rooted(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon with two roots, the first of which holds what it may start."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("sleeper", "other"):
        (root / name).write_text('#!/bin/sh\nexec sleep "$@"\n')
        (root / name).chmod(0o755)
    (root / "link").symlink_to("/bin/sleep")
    (tmp_path / "empty").mkdir()
    options = ("--binary-root", str(tmp_path / "empty"), "--binary-root", str(root), "--stop-timeout", "2")
    async with running_daemon(tmp_path, *options) as daemon:
        yield daemon


def spec(name: str, binary: Path | str) -> pb.ProcessSpec:
    return pb.ProcessSpec(name=name, binary=str(binary), args=["1000"])


async def denied(client: Client, name: str, binary: Path | str, *, replace: bool = False) -> str:
    call = client.process_replace if replace else client.process_create
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(spec(name, binary))
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return error.value.details() or ""


async def test_what_lies_outside_the_roots_is_denied_and_leaves_no_trace(rooted: Daemon) -> None:
    async with rooted.client() as client, Watch(client) as watch:
        for binary in (
            "/bin/sleep",
            rooted.folder / "root/link",
            "sleep",
            rooted.folder / "root/../x",
            "/no",
        ):
            assert "--binary-root" in await denied(client, "a", binary)
        assert await client.process_list() == {}
        await client.process_create(spec("a", rooted.folder / "root/sleeper"))
        await watch.state("a", "running")
        assert {change.spec.name for change in watch.seen} == {"a"}
        assert len({change.status.uuid for change in watch.seen}) == 1
    assert [path.name for path in rooted.logs.iterdir()] == ["a.log"]


async def test_a_replacement_outside_the_roots_is_denied_and_the_old_process_goes_on(rooted: Daemon) -> None:
    async with rooted.client() as client, Watch(client) as watch:
        created = await client.process_create(spec("a", rooted.folder / "root/sleeper"))
        await watch.state("a", "running")
        await denied(client, "a", "/bin/sleep", replace=True)
        assert (await client.process_get("a")).status == (await watch.state("a", "running")).status
        replaced = await client.process_replace(spec("a", rooted.folder / "root/other"))
        assert replaced.status.uuid != created.status.uuid


async def test_a_process_below_a_root_is_taken_over_without_the_journal(rooted: Daemon) -> None:
    async with rooted.client() as client, Watch(client) as watch:
        created = await client.process_create(spec("a", rooted.folder / "root/sleeper"))
        await watch.state("a", "running")
    rooted.process.kill()
    await rooted.ended()
    for path in rooted.folder.glob("state/journal*"):
        path.unlink()
    rooted.lines.clear()
    await rooted.start()
    async with rooted.client() as client:
        found = await client.process_get("a")
        assert found.spec == created.spec
        assert (found.status.uuid, found.status.state) == (created.status.uuid, "running")


async def test_an_instance_outside_the_roots_is_denied_too(rooted: Daemon) -> None:
    async with rooted.client() as client:
        for replace in (False, True):
            spec = instance_pb2.InstanceSpec(name="vol-r-1", type="replica")
            spec.process_instance_spec.binary = str(rooted.folder / "root/sleeper")
            if replace:
                await client.instance_create(spec)
            spec.process_instance_spec.binary = "/bin/sleep"
            call = client.instance_replace(spec) if replace else client.instance_create(spec)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
