"""Who makes a call is told by what the kernel and the certificate say."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.api.caller import UNKNOWN, Callers, unix_peers
from tests.support.patience import patience

CALL_FROM_ANOTHER_PROCESS = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    print(channel.unary_unary("/S/Who")(b"", timeout=20).decode(), flush=True)
    sys.stdin.read()
"""


class Server:
    """A server that answers with who has called."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "who.sock"
        self._server = grpc.aio.server()
        method: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(self._who)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("S", {"Who": method})])
        self._server.add_insecure_port(f"unix:{self.path}")
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def _who(self, _: bytes, context: Any) -> bytes:
        return Callers().who(context).encode()

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def asked_by_us(self, target: str) -> str:
        async with grpc.aio.insecure_channel(target) as channel:
            call: Any = channel.unary_unary("/S/Who")
            answer: bytes = await call(b"", timeout=patience(20))
            return answer.decode()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    serving = Server(tmp_path)
    await serving.start()
    yield serving
    await serving.stop()


async def test_over_tcp_it_is_the_address(server: Server) -> None:
    assert (await server.asked_by_us(f"127.0.0.1:{server.port}")).startswith("127.0.0.1:")


async def test_over_a_unix_socket_it_is_the_process_the_kernel_names(server: Server) -> None:
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALL_FROM_ANOTHER_PROCESS, f"unix:{server.path}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        told = (await asyncio.wait_for(other.stdout.readline(), patience(30))).decode().strip()
        assert told == f"unix socket, pid {other.pid} uid {os.getuid()} gid {os.getgid()}"
        # With two of them connected it cannot be told which; both are named and neither is blamed alone.
        both = await server.asked_by_us(f"unix:{server.path}")
        assert f"pid {other.pid} " in both
        assert f" or pid {os.getpid()} " in both or f"pid {os.getpid()} uid" in both
    finally:
        other.stdin.close()
        assert await asyncio.wait_for(other.wait(), patience(30)) == 0


async def test_without_a_connection_the_process_is_unknown(server: Server) -> None:
    class Gone:
        def peer(self) -> str:
            return "unix:"

        def auth_context(self) -> dict[str, list[bytes]]:
            return {}

    del server
    gone: Any = Gone()
    assert Callers().who(gone) == UNKNOWN
    with socket.socket(socket.AF_UNIX) as unconnected:
        unconnected.bind(f"\0{uuid.uuid4()}")
        assert Callers().who(gone) == UNKNOWN


async def test_looking_at_the_connections_closes_none(server: Server) -> None:
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        call: Any = channel.unary_unary("/S/Who")
        first = await call(b"", timeout=patience(20))
        for _ in range(50):
            assert [peer.pid for peer in unix_peers()] == [os.getpid()]
        assert await call(b"", timeout=patience(20)) == first


def test_without_a_descriptor_to_look_with_the_caller_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def peer(self) -> str:
            return "unix:"

        def auth_context(self) -> dict[str, Any]:
            return {}

    def exhausted(_: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "listdir", exhausted)
    caller: Any = Context()
    assert Callers().who(caller) == UNKNOWN
