"""Review: credentials in the log of a call that ends unexpectedly."""

import contextlib
import json
from pathlib import Path

import grpc.aio

from instance_manager.api.listeners import Offset
from tests.integration.test_proxy import start_engine
from tests.support.daemon import running_daemon
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient


async def test_no_credential_is_logged_when_a_restore_ends_unexpectedly(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as served:
        await start_engine(served, tmp_path)
        with EngineProcess() as engine:
            async with grpc.aio.insecure_channel(served.serving[-1]["addresses"][Offset.PROXY]) as channel:
                client = ProxyClient(channel)
                which = {"address": engine.address, "volume_name": "vol1", "engine_name": "vol1-e-0"}
                for url, secret in (("vfs:///b?backup=b1\0", "hunter2"), ("vfs:///b", "hunter2\0")):
                    request = {
                        "proxy_engine_request": which,
                        "url": url,
                        "target": "s3://b@r/",
                        "envs": ["AWS_ACCESS_KEY_ID=id", f"AWS_SECRET_ACCESS_KEY={secret}"],
                    }
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await client.call("BackupRestore", request)
    assert "hunter2" not in json.dumps(served.lines)
