"""Managers poll without pause and set the level to debug: the log stays readable all the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio
import pytest

from instance_manager.api.listeners import Offset
from instance_manager.client import Client
from instance_manager.pb.imrpc import proxy_pb2
from instance_manager.pb.ptypes import controller_pb2
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.patience import patience

Sized = Callable[[int, int], int]
PERIOD = 5.0
"""Seconds in which a manager asks seven things of each engine."""


@pytest.fixture
async def debugging(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path) as daemon:
        async with daemon.client() as client:
            await client.set_log_level("debug")
        yield daemon


async def poll(client: Client, engines: int) -> None:
    """Ask what a manager asks within `PERIOD` seconds."""
    for number in range(engines):
        for _ in range(5):
            await client.process_get(f"e{number}")
        await client.process_list()
        await client.version()
    await client.set_log_level("debug")
    assert await client.health() == "SERVING"


@pytest.mark.timeout(300)
async def test_a_polled_daemon_logs_less_than_a_line_a_second(debugging: Daemon, sized: Sized) -> None:
    """As often as a manager of a hundred volumes polls in a minute; with --full, as slowly, too."""
    async with debugging.client() as client, Watch(client) as watch:
        for number in range(100):
            await client.process_create(sleeper(f"e{number}"))
        for number in range(100):
            await watch.state(f"e{number}", "running")
        await client.set_log_level("debug")
        begin, loop = len(debugging.lines), asyncio.get_running_loop()
        for _ in range(12):
            until = loop.time() + sized(0, 1) * PERIOD
            await poll(client, 100)
            await asyncio.sleep(until - loop.time())
        with pytest.raises(grpc.aio.AioRpcError):
            await client.process_get("marks-the-end")
        await debugging.logged(lambda line: line.get("code") == "NOT_FOUND")
        lines = debugging.lines[begin:]
        for number in range(100):
            await client.process_delete(f"e{number}")
    assert len(lines) < 60, lines


async def test_a_failure_and_a_recovery_are_told_at_once(debugging: Daemon) -> None:
    async with debugging.client() as client, Watch(client) as watch:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.process_get("r")
        failure = await debugging.logged(lambda line: line.get("code") == "NOT_FOUND")
        assert failure["method"].endswith("/ProcessGet")
        assert "cannot find" in failure["reason"]
        await client.process_create(sleeper("r"))
        await watch.state("r", "running")
        for _ in range(20):
            await client.process_get("r")
        async with asyncio.timeout(patience(20)):
            again = await debugging.logged(lambda line: line["event"] == "call succeeds again")
        assert again["failures"] == 20
        reads = [line for line in debugging.lines if line.get("method", "").endswith("/ProcessGet")]
        assert reads == [failure, again]


async def test_a_level_that_is_set_already_leaves_one_entry_in_the_audit_trail(debugging: Daemon) -> None:
    async with debugging.client() as client:
        for level in ("debug", "info", "info", "debug", "debug"):
            await client.set_log_level(level)
        for level in ("loud", "loud", "shrill", "shrill", "loud"):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.set_log_level(level)
        await client.set_log_level("debug")
        codes = [entry.code for entry in (await client.audit()).entries]
    assert codes == ["OK", "OK", "OK", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]


POLLED = (
    "VolumeGet",
    "ReplicaList",
    "SnapshotList",
    "SnapshotPurgeStatus",
    "SnapshotCloneStatus",
    "BackupRestoreStatus",
    "ReplicaRebuildingStatus",
)


@pytest.mark.timeout(120)
async def test_a_daemon_whose_proxy_is_polled_logs_less_than_a_line_a_second(tmp_path: Path) -> None:
    """Each poll is several calls of engine and replicas; a change has a line for each of its own."""
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        async with daemon.client() as client:
            await client.set_log_level("debug")
        proxy = daemon.serving[-1]["addresses"][Offset.PROXY]
        with EngineProcess() as engine:
            which = proxy_pb2.ProxyEngineRequest(address=engine.address)
            async with grpc.aio.insecure_channel(proxy) as channel:
                asking, begin = ProxyClient(channel), len(daemon.lines)
                for _ in range(12):
                    for method in POLLED:
                        await asking.call(method, which)
                await asking.call(
                    "VolumeSnapshot",
                    proxy_pb2.EngineVolumeSnapshotRequest(
                        proxy_engine_request=which,
                        snapshot_volume=controller_pb2.VolumeSnapshotRequest(name="marks-the-end"),
                    ),
                )
        await daemon.logged(
            lambda line: line["event"] == "engine called" and line["method"].endswith("/VolumeSnapshot")
        )
        lines = daemon.lines[begin:]
    assert len(lines) < 60, lines
