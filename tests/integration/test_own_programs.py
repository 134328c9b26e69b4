"""What a daemon runs for itself does not outlive it: the next one ends it, and nothing else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.api.listeners import Offset
from instance_manager.pb.imrpc import imrpc_pb2
from tests.chaos.storm import Guarded
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.node import written

ENVS = ["AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter2"]
LEFT = "ended what an earlier daemon had run for itself"


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    helper = f"helper=sh -c 'echo $$ > {tmp_path}/helper; exec sleep 1000'"
    daemon = Guarded(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "1")
    *guard, end = daemon.prefix
    daemon.prefix = (*guard, "--helper", helper, end)
    await daemon.start()
    try:
        yield daemon
    finally:
        left = await daemon.clean_up()
    assert left == []


async def test_a_look_at_a_backup_that_hangs_is_ended_after_the_daemon_was_killed(
    guarded: Guarded, engine: EngineProcess, tmp_path: Path
) -> None:
    program = tmp_path / "longhorn"
    program.write_text(
        f'#!/bin/sh\ntest "$1" = backup || exec sleep 1000\n'
        f"sleep 1000 & echo $$ $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/looking; wait\n"
    )
    program.chmod(0o755)
    async with guarded.client() as client:
        await client.process_create(imrpc_pb2.ProcessSpec(name=engine.name, binary=str(program)))
    instances = guarded.instances()
    async with grpc.aio.insecure_channel(guarded.serving[-1]["addresses"][Offset.PROXY]) as channel:
        which = {"address": engine.address, "engine_name": engine.name, "volume_name": engine.volume}
        request = {
            "proxy_engine_request": which,
            "envs": ENVS,
            "url": "s3://b@r/?backup=b1",
            "target": "s3://b@r/",
        }
        call = ProxyClient(channel).call("BackupRestore", request)
        looking = asyncio.ensure_future(call)
        pids = await written(tmp_path / "looking")
        served = guarded.times_served()
        os.kill(guarded.daemon_pid(), signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await looking
    await guarded.served_after(served)
    assert [pid for pid in pids if lives(pid)] == []
    assert guarded.instances() == instances
    (helper,) = await written(tmp_path / "helper")
    assert lives(helper)
    told = [line for line in guarded.lines if line["event"] == LEFT]
    assert {line["left"] for line in told} >= set(pids)
    assert "hunter2" not in str(guarded.lines)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"
